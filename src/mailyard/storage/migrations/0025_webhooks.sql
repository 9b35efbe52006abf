-- Endpoints of applications that are told of events, what they are told, and how it went.

CREATE TABLE webhook (
    id               uuid PRIMARY KEY,
    workspace_id     uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name             text NOT NULL,
    url              text NOT NULL,
    kinds            text[] NOT NULL,               -- of events; what narrows them further is in `filter`
    filter           text NOT NULL,                 -- JSON
    payload          text NOT NULL,                 -- value or reference
    ordered          boolean NOT NULL,
    concurrency      smallint NOT NULL,
    enabled          boolean NOT NULL DEFAULT true,
    disabled_at      timestamptz,
    disabled_why     text NOT NULL DEFAULT '',      -- empty: by a person
    -- Told of events whose transaction is not older than the one that made or enabled the endpoint.
    from_xid         xid8 NOT NULL DEFAULT pg_current_xact_id(),
    failures         integer NOT NULL DEFAULT 0,    -- in a row
    failing_since    timestamptz,
    rests_until      timestamptz,                   -- after it could not be reached
    slow             boolean NOT NULL DEFAULT false,
    next_at          timestamptz,                   -- when something in its line is due again
    told_at          timestamptz                    -- when it last took something
);
CREATE INDEX webhook_by_workspace ON webhook (workspace_id, id);
CREATE INDEX webhook_next ON webhook (next_at) WHERE next_at IS NOT NULL;

CREATE TABLE webhook_secret (
    id             uuid PRIMARY KEY,
    webhook_id     uuid NOT NULL REFERENCES webhook ON DELETE CASCADE,
    workspace_id   uuid NOT NULL,
    sealed_secret  bytea NOT NULL,
    expires_at     timestamptz                      -- none: until it is replaced
);
CREATE INDEX webhook_secret_of ON webhook_secret (webhook_id);

-- Up to where in the stream of live events all endpoints have been dealt with. One row: whoever
-- holds its lock deals.
CREATE TABLE webhook_cursor (
    one  boolean PRIMARY KEY DEFAULT true CHECK (one),
    xid  xid8 NOT NULL,
    id   bigint NOT NULL
);
INSERT INTO webhook_cursor (xid, id) VALUES ('0', 0);

-- One event for one endpoint. `seq` is the order of the stream.
CREATE SEQUENCE webhook_delivery_seq;
CREATE TABLE webhook_delivery (
    id               uuid NOT NULL PRIMARY KEY,
    workspace_id     uuid NOT NULL,
    webhook_id       uuid NOT NULL,
    seq              bigint NOT NULL,
    event            text NOT NULL,                 -- its place in the stream; webhook-id
    kind             text NOT NULL,
    item             text NOT NULL,                 -- JSON
    happened_at      timestamptz NOT NULL,
    state            text NOT NULL,                 -- waiting, delivered, dead
    attempts         smallint NOT NULL DEFAULT 0,
    attempts_before  smallint NOT NULL DEFAULT 0,   -- those before it was last put back
    waits_since      timestamptz NOT NULL,          -- since it was made or last put back
    due_at           timestamptz NOT NULL,
    status           smallint,                      -- of the last answer
    why              text NOT NULL DEFAULT '',      -- the last failure
    ended_at         timestamptz
) PARTITION BY RANGE (id);
CREATE INDEX webhook_delivery_due ON webhook_delivery (webhook_id, due_at) WHERE state = 'waiting';
CREATE INDEX webhook_delivery_line ON webhook_delivery (webhook_id, seq) WHERE state = 'waiting';
CREATE INDEX webhook_delivery_dead ON webhook_delivery (webhook_id, id) WHERE state = 'dead';
CREATE INDEX webhook_delivery_log ON webhook_delivery (webhook_id, id);

-- Each request and its answer, as far as they are kept.
CREATE TABLE webhook_attempt (
    delivery_id      uuid NOT NULL,
    number           smallint NOT NULL,
    workspace_id     uuid NOT NULL,
    at               timestamptz NOT NULL,
    took_ms          integer NOT NULL,
    url              text NOT NULL,
    request_headers  text NOT NULL,                 -- JSON
    request_body     text NOT NULL,
    status           smallint,
    answer_headers   text NOT NULL,                 -- JSON
    answer_body      text NOT NULL,
    error            text NOT NULL,
    PRIMARY KEY (delivery_id, number)
) PARTITION BY RANGE (delivery_id);

-- What was asked to be told again: an endpoint, a span of time, and how far that has got.
CREATE TABLE webhook_replay (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL,
    webhook_id    uuid NOT NULL REFERENCES webhook ON DELETE CASCADE,
    since         timestamptz NOT NULL,
    until         timestamptz NOT NULL,
    xid           xid8 NOT NULL DEFAULT '0',
    row_id        bigint NOT NULL DEFAULT 0,
    events        bigint NOT NULL DEFAULT 0,
    done_at       timestamptz,
    -- Over only when no older transaction runs any more: what those write may lie in the span.
    made_xid      xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX webhook_replay_of ON webhook_replay (webhook_id, id);
