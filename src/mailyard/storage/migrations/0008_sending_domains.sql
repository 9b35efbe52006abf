-- Domains that a workspace sends from, and the DKIM keys that sign for them.

CREATE TABLE domain (
    id            uuid NOT NULL,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name          text NOT NULL,                   -- ASCII form, lower case
    PRIMARY KEY (id),
    UNIQUE (workspace_id, name)
);

CREATE TABLE dkim_key (
    id            uuid NOT NULL,                   -- its time is when the key was made
    workspace_id  uuid NOT NULL,
    domain_id     uuid NOT NULL REFERENCES domain ON DELETE CASCADE,
    selector      text NOT NULL,
    algorithm     text NOT NULL CHECK (algorithm IN ('rsa-sha256', 'ed25519-sha256')),
    record        text NOT NULL,                   -- the TXT record's text
    sealed_key    bytea,                           -- under the master key; none when retired
    state         text NOT NULL CHECK (state IN ('waiting', 'signing', 'retired')),
    finding       text NOT NULL DEFAULT '',        -- of the last look at DNS; empty: all is well
    looked_at     timestamptz,
    retired_at    timestamptz,
    PRIMARY KEY (id),
    UNIQUE (domain_id, selector)
);
CREATE INDEX dkim_key_by_workspace ON dkim_key (workspace_id, domain_id);
