-- The first schema. The rules behind it: DESIGN section 4, docs/decisions/0004-data.md.
-- Partitions are made by storage/partitions.py, never here, and there is no default partition.

-- Workspaces, people and access ---------------------------------------------------------------

CREATE TABLE workspace (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE user_account (
    id             uuid PRIMARY KEY,
    email          text NOT NULL UNIQUE,           -- normalised address
    password_hash  text,                           -- argon2id; null until a password is set
    created_at     timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE membership (
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    user_id       uuid NOT NULL REFERENCES user_account ON DELETE CASCADE,
    role          text NOT NULL CHECK (role IN ('owner', 'member', 'viewer')),
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, user_id)
);
CREATE INDEX membership_by_user ON membership (user_id);

CREATE TABLE session (
    token_hash    bytea PRIMARY KEY,               -- SHA-256 of the cookie's token
    user_id       uuid NOT NULL REFERENCES user_account ON DELETE CASCADE,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    csrf_token    text NOT NULL,
    user_agent    text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL
);
CREATE INDEX session_by_expiry ON session (expires_at);

CREATE TABLE login_link (
    token_hash  bytea PRIMARY KEY,                 -- SHA-256 of the token in the link
    user_id     uuid NOT NULL REFERENCES user_account ON DELETE CASCADE,
    expires_at  timestamptz NOT NULL,
    used_at     timestamptz
);

CREATE TABLE api_key (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name          text NOT NULL,
    prefix        text NOT NULL UNIQUE,            -- the part that finds the row
    secret_hash   bytea NOT NULL,                  -- SHA-256 of the whole key
    scopes        text[] NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    revoked_at    timestamptz
);
CREATE INDEX api_key_by_workspace ON api_key (workspace_id, id);

CREATE TABLE audit_log (
    id            uuid NOT NULL,
    workspace_id  uuid NOT NULL,
    actor_kind    text NOT NULL,                   -- user, key, command, system
    actor         text NOT NULL,
    action        text NOT NULL,                   -- inbox.create, campaign.pause, …
    subject       text NOT NULL,                   -- a TypeID
    before        jsonb,
    after         jsonb,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX audit_log_by_workspace ON audit_log (workspace_id, id DESC);

CREATE TABLE idempotency_key (
    workspace_id  uuid NOT NULL,
    key           text NOT NULL,
    body_hash     bytea NOT NULL,
    status        smallint NOT NULL,
    answer        bytea NOT NULL,
    expires_at    timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, key)
);
CREATE INDEX idempotency_key_by_expiry ON idempotency_key (expires_at);

-- Received mail -------------------------------------------------------------------------------
-- retention_days: 1, 7, 30, 400, or 0 for kept. LIST on it, then RANGE on the id.

CREATE TABLE address (
    address         text NOT NULL,                 -- normalised, whole
    workspace_id    uuid NOT NULL,
    inbox_id        uuid NOT NULL,
    retention_days  smallint NOT NULL,
    expires_at      timestamptz,
    PRIMARY KEY (address)
) PARTITION BY HASH (address);
CREATE INDEX address_by_expiry ON address (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE inbox (
    id              uuid NOT NULL,
    workspace_id    uuid NOT NULL,
    retention_days  smallint NOT NULL,
    address         text NOT NULL,
    name            text NOT NULL DEFAULT '',
    labels          text[] NOT NULL DEFAULT '{}',
    expires_at      timestamptz,
    deleted_at      timestamptz,
    PRIMARY KEY (id, retention_days)
) PARTITION BY LIST (retention_days);
CREATE INDEX inbox_by_workspace ON inbox (workspace_id, id);

-- As accepted, never changed. Bytes stay in line up to 8 kB a row: one page write, no TOAST rows.
CREATE TABLE message (
    id              uuid NOT NULL,                 -- its time is when the message was accepted
    workspace_id    uuid NOT NULL,
    retention_days  smallint NOT NULL,
    reverse_path    text NOT NULL,                 -- envelope sender, empty for <>
    recipients      text[] NOT NULL,               -- envelope recipients in this workspace
    inbox_ids       uuid[] NOT NULL,               -- where they go, one for each distinct inbox
    helo            text NOT NULL,
    peer            text NOT NULL,                 -- address of the connected client
    size_bytes      integer NOT NULL,
    raw             bytea NOT NULL,
    PRIMARY KEY (id, retention_days)
) PARTITION BY LIST (retention_days);
ALTER TABLE message ALTER COLUMN raw SET STORAGE EXTERNAL;

-- A message in an inbox: written by ingest, read by lists and searches.
CREATE TABLE inbox_message (
    inbox_id                uuid NOT NULL,
    message_id              uuid NOT NULL,
    workspace_id            uuid NOT NULL,
    retention_days          smallint NOT NULL,     -- the inbox's class
    message_retention_days  smallint NOT NULL,     -- the message's class, its recipients' longest
    recipient               text NOT NULL,
    from_address            text NOT NULL,
    from_name               text NOT NULL,
    subject                 text NOT NULL,
    preview                 text NOT NULL,
    sent_at                 timestamptz,           -- the Date header
    header_message_id       text NOT NULL,
    size_bytes              integer NOT NULL,
    attachments             smallint NOT NULL,
    deleted_at              timestamptz,
    PRIMARY KEY (inbox_id, message_id, retention_days)
) PARTITION BY LIST (retention_days);

-- Sent mail -----------------------------------------------------------------------------------

CREATE TYPE delivery_state AS ENUM (
    'queued', 'handed_off', 'accepted', 'deferred', 'delivered',
    'bounced', 'failed', 'suppressed', 'expired', 'unknown', 'cancelled'
);

-- One accepted request to send, with its content; its recipients are delivery rows.
CREATE TABLE email (
    id            uuid NOT NULL,
    workspace_id  uuid NOT NULL,
    type          text NOT NULL,
    sender        text NOT NULL,
    subject       text NOT NULL,
    content       bytea NOT NULL,                  -- msgspec JSON of sending.accept.EmailContent
    send_at       timestamptz,
    expires_at    timestamptz,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX email_by_workspace ON email (workspace_id, id);

CREATE TABLE delivery (
    id               uuid NOT NULL,
    workspace_id     uuid NOT NULL,
    email_id         uuid,                         -- transactional mail
    campaign_id      uuid,                         -- campaign mail
    contact_id       uuid,
    recipient        text NOT NULL,
    recipient_key    bigint NOT NULL,              -- hash of the normalised address, for history
    type             text NOT NULL,                -- what kind of mail: the caller's word
    state            delivery_state NOT NULL,
    attempts         smallint NOT NULL DEFAULT 0,
    fence            bigint NOT NULL DEFAULT 0,    -- token of the lease that named it for hand-off
    reply_code       smallint,
    reply            text NOT NULL DEFAULT '',
    transport        text NOT NULL DEFAULT '',
    queued_at        timestamptz NOT NULL DEFAULT now(),
    handed_off_at    timestamptz,
    updated_at       timestamptz NOT NULL DEFAULT now(),
    next_attempt_at  timestamptz,
    expires_at       timestamptz,
    PRIMARY KEY (id)
) PARTITION BY RANGE (id);
CREATE INDEX delivery_by_recipient ON delivery (workspace_id, recipient_key, id);
CREATE INDEX delivery_by_type ON delivery (workspace_id, type, id);
CREATE INDEX delivery_by_state ON delivery (workspace_id, state, id);
CREATE INDEX delivery_by_email ON delivery (email_id) WHERE email_id IS NOT NULL;
CREATE INDEX delivery_waiting ON delivery (next_attempt_at) WHERE state IN ('queued', 'deferred');

-- What happened after (or before) the row's own result; partitioned on its delivery's id.
CREATE TABLE delivery_event (
    delivery_id   uuid NOT NULL,
    seq           integer NOT NULL,
    workspace_id  uuid NOT NULL,
    at            timestamptz NOT NULL DEFAULT now(),
    state         delivery_state NOT NULL,
    attempt       smallint NOT NULL DEFAULT 0,
    reply_code    smallint,
    detail        text NOT NULL DEFAULT '',
    PRIMARY KEY (delivery_id, seq)
) PARTITION BY RANGE (delivery_id);

CREATE TABLE suppression (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    address       text NOT NULL,                   -- normalised
    stream        text NOT NULL CHECK (stream IN ('all', 'campaign')),
    reason        text NOT NULL,
    UNIQUE (workspace_id, address, stream)
);

CREATE TABLE template (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name          text NOT NULL,
    version       integer NOT NULL,                -- the newest
    UNIQUE (workspace_id, name)
);

CREATE TABLE template_version (
    template_id   uuid NOT NULL REFERENCES template ON DELETE CASCADE,
    version       integer NOT NULL,
    workspace_id  uuid NOT NULL,
    subject       text NOT NULL,
    html          text NOT NULL,
    text          text NOT NULL,
    variables     text[] NOT NULL,                 -- names the three sources use
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (template_id, version)
);

-- Contacts and campaigns ----------------------------------------------------------------------

CREATE TABLE contact (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    address       text NOT NULL,                   -- normalised
    name          text NOT NULL DEFAULT '',
    attributes    jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (workspace_id, address)
);
CREATE INDEX contact_by_workspace ON contact (workspace_id, id);

CREATE TABLE contact_list (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name          text NOT NULL,
    UNIQUE (workspace_id, name)
);

CREATE TABLE list_member (
    list_id       uuid NOT NULL REFERENCES contact_list ON DELETE CASCADE,
    contact_id    uuid NOT NULL,
    workspace_id  uuid NOT NULL,
    added_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (list_id, contact_id)
);

CREATE TABLE contact_import (
    id             uuid PRIMARY KEY,
    workspace_id   uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    list_id        uuid REFERENCES contact_list ON DELETE SET NULL,
    file_name      text NOT NULL,
    state          text NOT NULL CHECK (state IN ('uploading', 'queued', 'running', 'finished', 'failed')),
    mapping        jsonb NOT NULL DEFAULT '{}',    -- column name -> address, name, an attribute, or null
    layout         jsonb,                          -- campaigns.csv_layout.Layout, once the file is whole
    size_bytes     bigint NOT NULL DEFAULT 0,
    read_bytes     bigint NOT NULL DEFAULT 0,      -- where a restarted worker goes on
    read_lines     bigint NOT NULL DEFAULT 0,
    rows_imported  bigint NOT NULL DEFAULT 0,
    rows_rejected  bigint NOT NULL DEFAULT 0,
    fence          bigint NOT NULL DEFAULT 0,
    error          text NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL DEFAULT now(),
    finished_at    timestamptz
);
CREATE INDEX contact_import_by_workspace ON contact_import (workspace_id, id);

CREATE TABLE contact_import_part (
    import_id     uuid NOT NULL REFERENCES contact_import ON DELETE CASCADE,
    number        integer NOT NULL,
    workspace_id  uuid NOT NULL,
    bytes         bytea NOT NULL,
    PRIMARY KEY (import_id, number)
);
ALTER TABLE contact_import_part ALTER bytes SET STORAGE EXTERNAL;  -- read once, not worth packing

CREATE TABLE contact_import_reject (
    import_id     uuid NOT NULL REFERENCES contact_import ON DELETE CASCADE,
    line          bigint NOT NULL,
    workspace_id  uuid NOT NULL,
    reason        text NOT NULL,
    row_text      text NOT NULL,
    PRIMARY KEY (import_id, line)
);

CREATE TABLE campaign (
    id                uuid PRIMARY KEY,
    workspace_id      uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name              text NOT NULL,
    type              text NOT NULL,               -- the deliveries' type
    template_id       uuid NOT NULL,
    template_version  integer NOT NULL,
    list_id           uuid NOT NULL,
    sender            text NOT NULL,               -- as in From: name and address
    reply_to          text NOT NULL DEFAULT '',
    list_unsubscribe  text NOT NULL DEFAULT '',    -- an https URL, or empty
    rate_per_s        double precision,
    state             text NOT NULL CHECK (state IN ('draft', 'running', 'paused', 'cancelled', 'finished')),
    created_at        timestamptz NOT NULL DEFAULT now(),
    first_started_at  timestamptz,                 -- the time inside its delivery ids
    finished_at       timestamptz,
    recipients        bigint NOT NULL DEFAULT 0,   -- members of the list at the first start
    planned_upto      uuid,                        -- the last contact that a chunk holds
    planned           boolean NOT NULL DEFAULT false
);
CREATE INDEX campaign_by_workspace ON campaign (workspace_id, id);

CREATE TABLE campaign_chunk (
    campaign_id    uuid NOT NULL REFERENCES campaign ON DELETE CASCADE,
    number         integer NOT NULL,
    workspace_id   uuid NOT NULL,
    after_contact  uuid NOT NULL,                  -- exclusive
    last_contact   uuid NOT NULL,                  -- inclusive
    size           integer NOT NULL,
    state          text NOT NULL CHECK (state IN ('waiting', 'running', 'finished')),
    fence          bigint NOT NULL DEFAULT 0,      -- token of the lease that works on it
    named_upto     uuid,                           -- intent: the last contact that may have left
    named          integer NOT NULL DEFAULT 0,     -- and how many contacts that are
    accepted       integer NOT NULL DEFAULT 0,
    deferred       integer NOT NULL DEFAULT 0,
    bounced        integer NOT NULL DEFAULT 0,
    failed         integer NOT NULL DEFAULT 0,
    suppressed     integer NOT NULL DEFAULT 0,
    unknown        integer NOT NULL DEFAULT 0,
    cancelled      integer NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign_id, number)
) WITH (fillfactor = 50);
CREATE INDEX campaign_chunk_open ON campaign_chunk (campaign_id, number) WHERE state <> 'finished';

-- Counters and live events --------------------------------------------------------------------
-- Deltas are appended in anybody's transaction; the scheduler folds them into `counter`.

CREATE TABLE counter_delta (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace_id  uuid NOT NULL,
    name          text NOT NULL,                   -- received, accepted, campaign.bounced, …
    subject       uuid NOT NULL,                   -- a campaign, an inbox, or the workspace itself
    minute        timestamptz NOT NULL,
    amount        bigint NOT NULL
);

CREATE TABLE counter (
    workspace_id  uuid NOT NULL,
    name          text NOT NULL,
    subject       uuid NOT NULL,
    minute        timestamptz NOT NULL,
    amount        bigint NOT NULL,
    PRIMARY KEY (workspace_id, name, subject, minute)
);

-- One row is a batch of events of one kind. Readers take rows in (xid, id) order below the oldest
-- running transaction, which is commit order as far as any reader can tell.
CREATE SEQUENCE live_event_id;  -- a partitioned table has no identity columns before PostgreSQL 17
CREATE TABLE live_event (
    id            bigint NOT NULL DEFAULT nextval('live_event_id'),
    xid           xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at            timestamptz NOT NULL DEFAULT now(),
    workspace_id  uuid NOT NULL,
    kind          text NOT NULL,                   -- message.received, delivery.changed, campaign.progress, …
    items         jsonb NOT NULL                   -- an array of objects
) PARTITION BY RANGE (at);
CREATE INDEX live_event_in_order ON live_event (xid, id);

-- Processes and runs --------------------------------------------------------------------------

CREATE TABLE process (
    id            uuid PRIMARY KEY,
    role          text NOT NULL,
    host          text NOT NULL,
    pid           integer NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT now(),
    seen_at       timestamptz NOT NULL DEFAULT now(),
    stats         jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE leader (
    duty   text PRIMARY KEY,                       -- scheduler
    epoch  bigint NOT NULL,
    holder uuid NOT NULL
);

CREATE TABLE rate_bucket (
    key    text PRIMARY KEY,                       -- campaign:<id>, …
    tat    timestamptz NOT NULL                    -- theoretical arrival time of GCRA
) WITH (fillfactor = 50);

CREATE TABLE demo_run (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    recipients    integer NOT NULL,
    state         text NOT NULL CHECK (state IN ('queued', 'running', 'finished', 'failed')),
    stage         text NOT NULL DEFAULT '',
    done          bigint NOT NULL DEFAULT 0,
    verdict       jsonb,
    error         text NOT NULL DEFAULT '',
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX demo_run_by_workspace ON demo_run (workspace_id, id);
