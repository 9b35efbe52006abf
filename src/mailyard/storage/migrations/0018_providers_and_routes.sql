-- Through whom a workspace sends: providers, routes among them, and how the providers fare.

CREATE TABLE provider (
    id              uuid NOT NULL,
    workspace_id    uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    shared          boolean NOT NULL,              -- the operator's, for every workspace
    name            text NOT NULL,                 -- in the history of deliveries: never used again
    kind            text NOT NULL,
    settings        jsonb NOT NULL,
    secret_names    text[] NOT NULL,
    sealed_secrets  bytea,                         -- under the master key; none when removed
    enabled         boolean NOT NULL DEFAULT true,
    revision        integer NOT NULL DEFAULT 1,
    removed_at      timestamptz,
    PRIMARY KEY (id),
    UNIQUE (workspace_id, name)
);

CREATE TABLE route (
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    shared        boolean NOT NULL,                -- for workspaces without routes of their own
    place         integer NOT NULL,                -- from the top
    name          text NOT NULL,
    conditions    jsonb NOT NULL,
    legs          jsonb NOT NULL,
    PRIMARY KEY (workspace_id, shared, place)
);

-- A provider as each worker process sees it. The relay of the settings has no row in `provider`, and
-- its id is all zeros.
CREATE TABLE provider_health (
    provider_id   uuid NOT NULL,
    holder        uuid NOT NULL,
    position      text NOT NULL CHECK (position IN ('closed', 'open', 'half_open')),
    why           text NOT NULL,
    until_at      timestamptz,                     -- when an open one is tried
    changed_at    timestamptz,
    own           boolean NOT NULL,                -- found out by this process itself
    accepted      bigint NOT NULL,                 -- recipients, since the process began
    later         bigint NOT NULL,
    refused       bigint NOT NULL,
    unknown       bigint NOT NULL,
    passed_on     bigint NOT NULL,                 -- not taken, and given to another provider
    seen_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (provider_id, holder)
) WITH (fillfactor = 50);

CREATE TABLE provider_event (
    id            uuid NOT NULL,                   -- its time is when the breaker changed
    provider_id   uuid NOT NULL,
    position      text NOT NULL,
    why           text NOT NULL,
    until_at      timestamptz,
    PRIMARY KEY (id)
);
CREATE INDEX provider_event_by_provider ON provider_event (provider_id, id);
