-- Own receiving domains with their routes, and what ends of an inbox before its own end.

-- A domain that a workspace receives for, once a TXT record has shown that it is its own. Who proves
-- last, has it: an older proof ends where its record does not stand any more.
CREATE TABLE receiving_domain (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name          text NOT NULL,                   -- ASCII form
    token         text NOT NULL,                   -- what the TXT record has to say
    plus          boolean NOT NULL DEFAULT true,   -- ada+anything goes where ada goes
    proved_at     timestamptz,
    checked_at    timestamptz,
    finding       text NOT NULL DEFAULT '',        -- what is wrong with the proof
    mx_state      text NOT NULL DEFAULT 'unchecked',
    mx_finding    text NOT NULL DEFAULT '',
    UNIQUE (workspace_id, name)
);
CREATE UNIQUE INDEX receiving_domain_owner ON receiving_domain (name) WHERE proved_at IS NOT NULL;

-- Where mail goes whose address is no inbox's. An alias is a pattern without a wildcard, a catch-all
-- is the pattern *.
CREATE TABLE inbound_route (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    domain_id     uuid NOT NULL REFERENCES receiving_domain ON DELETE CASCADE,
    position      integer NOT NULL,                -- among the domain's patterns, the lowest first
    pattern       text NOT NULL,                   -- of the part before @
    action        text NOT NULL CHECK (action IN ('inbox', 'webhook', 'forward', 'drop', 'refuse')),
    address       text NOT NULL DEFAULT '',        -- of the inbox that it is filed in
    filed_in      uuid,                            -- that inbox, where the route has one of its own
    forward_to    text[] NOT NULL DEFAULT '{}',
    UNIQUE (domain_id, pattern)
);
CREATE INDEX inbound_route_of_workspace ON inbound_route (workspace_id, domain_id, position);
CREATE INDEX inbound_route_forwards ON inbound_route (filed_in) WHERE action = 'forward';

-- Addresses that nobody else may take, with or without an inbox.
CREATE TABLE reserved_address (
    address       text PRIMARY KEY,                -- normalised
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX reserved_address_of_workspace ON reserved_address (workspace_id, address);

-- The first id of an instant's millisecond.
CREATE FUNCTION lowest_id_at(moment timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$ SELECT (lpad(to_hex(greatest(0, floor(extract(epoch FROM moment) * 1000))::bigint), 12, '0')
           || '70008000000000000000')::uuid $$;

ALTER TABLE inbox
    ADD COLUMN message_ttl_s  double precision,    -- its mail ends so long after it came; null: with it
    ADD COLUMN one_time       boolean NOT NULL DEFAULT false,
    ADD COLUMN messages_max   integer,
    ADD COLUMN bytes_max      bigint;

ALTER TABLE address
    ADD COLUMN domain_id      uuid,                -- the own domain that it is under
    ADD COLUMN mail_days      smallint,            -- its messages' class, where shorter than the inbox's
    ADD COLUMN one_time       boolean,             -- its first mail closes it
    ADD COLUMN closed_at      timestamptz,
    ADD COLUMN messages_max   integer,
    ADD COLUMN bytes_max      bigint,
    ADD COLUMN messages_used  integer,             -- counted by ingest where there is a most
    ADD COLUMN bytes_used     bigint;
CREATE INDEX address_of_domain ON address (domain_id) WHERE domain_id IS NOT NULL;

-- The inboxes' own addresses, where mail came to others that lead there; null: to themselves.
ALTER TABLE message ADD COLUMN filed_under text[];

-- Lines whose message leaves before their inbox does.
CREATE INDEX inbox_message_shorter ON inbox_message (message_id)
    WHERE message_retention_days <> 0
      AND (retention_days = 0 OR retention_days > message_retention_days);

-- Lines that were deleted one by one.
CREATE INDEX inbox_message_deleted ON inbox_message (deleted_at) WHERE deleted_at IS NOT NULL;
