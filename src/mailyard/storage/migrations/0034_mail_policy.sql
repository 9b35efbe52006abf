-- Whom a workspace takes mail from, and how much of it; one row where it says anything.
CREATE TABLE mail_policy (
    workspace_id        uuid PRIMARY KEY REFERENCES workspace ON DELETE CASCADE,
    allowed             text[] NOT NULL DEFAULT '{}',  -- networks, addresses, domains: nothing below holds
    blocked             text[] NOT NULL DEFAULT '{}',  -- the same: refused
    source_per_minute   integer,                       -- recipients that one network may name
    greylist_s          integer,                       -- how long a stranger waits with his first mail
    spam_tag_at         double precision,
    spam_refuse_at      double precision
);

-- Who has tried to write to whom. Lost with a crash of the server: then strangers wait once more.
CREATE UNLOGGED TABLE greylist (
    workspace_id  uuid NOT NULL,
    key           bytea NOT NULL,                       -- hash of network, sender and recipient
    first_at      timestamptz NOT NULL DEFAULT now(),
    last_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, key)
);
CREATE INDEX greylist_by_age ON greylist (last_at);

-- Inboxes that have ended and lie where no partition leaves soon.
CREATE INDEX inbox_deleted ON inbox (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX inbox_kept_ends ON inbox (expires_at)
    WHERE retention_days = 0 AND expires_at IS NOT NULL;
