-- Analysis of received mail: which models a workspace has, when it asks them, what that may cost a
-- day, and what they answered.

CREATE TABLE analysis_policy (
    workspace_id   uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    on_arrival     boolean NOT NULL DEFAULT false,
    inboxes        boolean NOT NULL DEFAULT false,   -- some inbox says otherwise for itself
    aspects        text[] NOT NULL,                  -- what is asked on arrival
    fields         text NOT NULL DEFAULT '',         -- the caller's own fields: a JSON Schema
    day_tokens     bigint,                           -- null: as many as are wanted
    day_micros     bigint,                           -- millionths of the money that prices are in
    PRIMARY KEY (workspace_id)
);

-- What an inbox says for itself; null: as its workspace.
ALTER TABLE inbox ADD COLUMN analysis boolean;

CREATE TABLE analysis_model (
    id             uuid NOT NULL,
    workspace_id   uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name           text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('openai', 'anthropic')),
    place          integer NOT NULL,                 -- the lowest is asked first
    settings       text NOT NULL,                    -- JSON
    sealed_key     bytea,                            -- under the master key
    enabled        boolean NOT NULL DEFAULT true,
    resting_until  timestamptz,                      -- its breaker is open
    why            text NOT NULL DEFAULT '',         -- the breaker's last word
    PRIMARY KEY (id),
    UNIQUE (workspace_id, name)
);

-- A workspace's day. What a call may use at most is counted before it, and corrected behind it.
CREATE TABLE analysis_spent (
    workspace_id   uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    day            date NOT NULL,
    tokens         bigint NOT NULL,
    micros         bigint NOT NULL,
    calls          bigint NOT NULL DEFAULT 0,
    failures       bigint NOT NULL DEFAULT 0,
    kept           bigint NOT NULL DEFAULT 0,        -- answers that were there already
    PRIMARY KEY (workspace_id, day)
) WITH (fillfactor = 50);

-- Answers for ever, under a hash of what was asked. Each is sealed with a key that only the content
-- of its mail gives (and the installation's master key), so that with the mail's last byte its
-- answer is gone as well.
CREATE TABLE analysis_result (
    workspace_id   uuid NOT NULL,
    key            bytea NOT NULL,
    sealed         bytea NOT NULL,
    PRIMARY KEY (workspace_id, key)
);

CREATE TABLE message_analysis (
    message_id      uuid NOT NULL,
    task            bytea NOT NULL,                  -- what was asked, hashed
    retention_days  smallint NOT NULL,               -- the message's class
    workspace_id    uuid NOT NULL,
    ask             text NOT NULL,                   -- JSON
    state           text NOT NULL CHECK (state IN ('queued', 'done')),
    outcome         text NOT NULL,                   -- JSON; empty while it is queued
    asked_at        timestamptz NOT NULL DEFAULT now(),
    done_at         timestamptz,
    PRIMARY KEY (message_id, task, retention_days)
) PARTITION BY LIST (retention_days);
