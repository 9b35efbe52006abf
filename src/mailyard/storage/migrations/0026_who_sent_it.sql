-- Who sent a mail: the verdict of its checks, what an inbox does with forged mail, and what it kept
-- out.

-- One row a message that was judged; until then there is none. It lies with its message
-- (storage/derived.py).
CREATE TABLE verdict (
    message_id      uuid NOT NULL,
    retention_days  smallint NOT NULL,
    workspace_id    uuid NOT NULL,
    standing        text NOT NULL,                 -- verified, unverified, forged, unknown
    detail          text NOT NULL,                 -- JSON: each check and the header field
    PRIMARY KEY (message_id, retention_days)
) PARTITION BY LIST (retention_days);

-- Mail that an inbox keeps out: `waiting` for its verdict, or `refused`. It lies with its inbox.
CREATE TABLE held_message (
    inbox_id        uuid NOT NULL,
    message_id      uuid NOT NULL,
    retention_days  smallint NOT NULL,
    workspace_id    uuid NOT NULL,
    state           text NOT NULL,
    recipient       text NOT NULL,
    from_address    text NOT NULL,
    from_name       text NOT NULL,
    subject         text NOT NULL,
    size_bytes      integer NOT NULL,
    PRIMARY KEY (inbox_id, message_id, retention_days)
) PARTITION BY LIST (retention_days);

-- What the inbox behind an address does with forged mail: 0 takes it, 1 tags it, 2 keeps it out.
ALTER TABLE address ADD COLUMN on_forged smallint NOT NULL DEFAULT 0;
CREATE INDEX address_on_forged ON address (inbox_id) WHERE on_forged <> 0;
