-- How a workspace writes dates and money; what processes share for a while; campaigns that take the
-- template as it is when they start.

ALTER TABLE workspace ADD COLUMN locale text NOT NULL DEFAULT 'en';

-- Nothing that matters: a crash of the server may empty it.
CREATE UNLOGGED TABLE cache_entry (
    workspace_id  uuid NOT NULL,
    key           text NOT NULL,
    value         bytea NOT NULL,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, key)
);
CREATE INDEX cache_entry_by_expiry ON cache_entry (expires_at);

ALTER TABLE campaign ALTER COLUMN template_version DROP NOT NULL;  -- null: the one in use at the start
