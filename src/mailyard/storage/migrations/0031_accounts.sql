-- People who come by themselves: sign-up, invitations, forgotten passwords.

-- Since when it is known that whoever holds the account reads the mail of its address; null: others
-- may have a way in (a link, a password), which an invitation then takes away.
ALTER TABLE user_account ADD COLUMN verified_at timestamptz;

-- Links that were mailed: SHA-256 of each token. They work once and for a while.
CREATE TABLE account_link (
    token_hash  bytea PRIMARY KEY,
    purpose     text NOT NULL CHECK (purpose IN ('sign_up', 'reset')),
    email       text NOT NULL,                     -- normalised address that the link went to
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);
CREATE INDEX account_link_by_expiry ON account_link (expires_at);
CREATE INDEX account_link_by_email ON account_link (email);

CREATE TABLE invitation (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    email         text NOT NULL,                   -- normalised
    role          text NOT NULL CHECK (role IN ('owner', 'member', 'viewer')),
    invited_by    text NOT NULL,
    token_hash    bytea UNIQUE,                    -- of the newest mail; null until it is written
    expires_at    timestamptz NOT NULL,
    UNIQUE (workspace_id, email)
);
