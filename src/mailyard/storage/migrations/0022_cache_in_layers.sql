-- Results that are dear to make, and what has changed since they were made.

CREATE TABLE cache_result (
    workspace_id  uuid NOT NULL,
    kind          text NOT NULL,
    key           text NOT NULL,
    value         bytea NOT NULL,
    tags          text[] NOT NULL DEFAULT '{}',
    made          pg_snapshot NOT NULL,          -- it has in it at least what this sees
    expires_at    timestamptz,                   -- null: true for ever
    PRIMARY KEY (workspace_id, kind, key)
);
CREATE INDEX cache_result_by_tag ON cache_result USING gin (tags) WHERE tags <> '{}';
CREATE INDEX cache_result_by_expiry ON cache_result (expires_at) WHERE expires_at IS NOT NULL;

-- Read for seconds, kept for minutes. Logged all the same: a crash of the server that lost a change
-- would leave the old value in a process that did not notice the crash.
CREATE TABLE cache_change (
    xid           xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at            timestamptz NOT NULL DEFAULT now(),
    workspace_id  uuid NOT NULL,
    tags          text[] NOT NULL
);
CREATE INDEX cache_change_in_order ON cache_change (xid);
CREATE INDEX cache_change_by_workspace ON cache_change (workspace_id);
CREATE INDEX cache_change_by_age ON cache_change (at);
