-- The queue on PostgreSQL (docs/decisions: the queue's tables). What it is built against is bloat:
-- under a long-lived snapshot no dead row can be vacuumed, so nothing here is updated on the hot
-- way, and a reader never walks over the dead twice.
--
--   enqueue   inserts a job and its place in line
--   lease     deletes the places, inserts one row for the whole batch
--   complete  deletes the jobs, and the batch's row with the last of them

CREATE SEQUENCE job_place;                         -- ids of jobs, and places in line
CREATE SEQUENCE job_token;                         -- fencing tokens, growing over all leases ever

CREATE TABLE queue_policy (
    queue            text PRIMARY KEY,
    paused           boolean NOT NULL DEFAULT false,
    key_rate_per_s   double precision CHECK (key_rate_per_s > 0),
    key_burst        integer NOT NULL DEFAULT 1 CHECK (key_burst > 0),
    key_concurrency  integer CHECK (key_concurrency > 0)
);

-- A line: the jobs of one workspace at one priority of a queue. Lines take turns. The line of its
-- suspects (jobs whose worker died) has the negated id.
CREATE TABLE queue_line (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue         text NOT NULL,
    priority      smallint NOT NULL,
    workspace_id  uuid,
    UNIQUE NULLS NOT DISTINCT (queue, priority, workspace_id)
);

CREATE TABLE job (
    id            bigint PRIMARY KEY,
    line_id       integer NOT NULL,
    turn          integer NOT NULL DEFAULT 0,      -- how often it came back into its line
    attempts      smallint NOT NULL DEFAULT 0,     -- leases that ended, this one not counted
    crashes       smallint NOT NULL DEFAULT 0,     -- leases that ended without a word
    max_attempts  smallint NOT NULL,
    enqueued_at   timestamptz NOT NULL,
    kind          text NOT NULL,
    unique_key    text,                            -- queue, newline, key
    limit_key     text,
    error         text,
    payload       bytea NOT NULL
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX job_unique ON job (unique_key) WHERE unique_key IS NOT NULL;

CREATE TABLE job_ready (
    line_id  integer NOT NULL,
    place    bigint NOT NULL,
    job_id   bigint NOT NULL,
    since    timestamptz NOT NULL,
    PRIMARY KEY (line_id, place)
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE job_scheduled (
    run_at  timestamptz NOT NULL,
    job_id  bigint NOT NULL,
    PRIMARY KEY (run_at, job_id)
) WITH (vacuum_truncate = off);

-- Jobs that their key's limit holds back, the keys that have any, and the jobs let through.
CREATE TABLE job_parked (
    queue      text NOT NULL,
    limit_key  text NOT NULL,
    place      bigint NOT NULL,
    job_id     bigint NOT NULL,
    PRIMARY KEY (queue, limit_key, place)
);
CREATE TABLE job_key (
    queue      text NOT NULL,
    limit_key  text NOT NULL,
    tat        timestamptz NOT NULL DEFAULT '-infinity',  -- theoretical arrival time of GCRA
    PRIMARY KEY (queue, limit_key)
);
CREATE TABLE job_slot (
    job_id     bigint PRIMARY KEY,
    queue      text NOT NULL,
    limit_key  text NOT NULL
);
CREATE INDEX job_slot_by_key ON job_slot (queue, limit_key);

-- One row for a leased batch: its heartbeat is one small update.
CREATE TABLE job_lease (
    token       bigint PRIMARY KEY,
    worker      text NOT NULL,
    expires_at  timestamptz NOT NULL,
    job_ids     bigint[] NOT NULL,
    turns       integer[] NOT NULL
) WITH (fillfactor = 70, vacuum_truncate = off, autovacuum_vacuum_cost_delay = 0);

CREATE TABLE job_dead (
    id            bigint PRIMARY KEY,
    line_id       integer NOT NULL,
    turn          integer NOT NULL,
    attempts      smallint NOT NULL,
    crashes       smallint NOT NULL,
    max_attempts  smallint NOT NULL,
    enqueued_at   timestamptz NOT NULL,
    buried_at     timestamptz NOT NULL,
    kind          text NOT NULL,
    unique_key    text,
    limit_key     text,
    error         text NOT NULL,
    payload       bytea NOT NULL
);
CREATE INDEX job_dead_by_line ON job_dead (line_id, id);

-- Depths. Every statement appends what it changed; a fold adds up what is settled.
CREATE TABLE queue_delta (
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    queue      text NOT NULL,
    ready      integer NOT NULL DEFAULT 0,
    scheduled  integer NOT NULL DEFAULT 0,
    leased     integer NOT NULL DEFAULT 0,
    dead       integer NOT NULL DEFAULT 0
);
CREATE INDEX queue_delta_in_order ON queue_delta (xid);
CREATE TABLE queue_count (
    queue      text PRIMARY KEY,
    ready      bigint NOT NULL,
    scheduled  bigint NOT NULL,
    leased     bigint NOT NULL,
    dead       bigint NOT NULL
);
CREATE TABLE queue_fold (
    upto  xid8 NOT NULL                            -- changes of older transactions are in queue_count
);
INSERT INTO queue_fold VALUES ('0');

CREATE TABLE queue_schedule (
    name     text PRIMARY KEY,
    next_at  timestamptz NOT NULL
);

-- A plan made while the table was empty would read it from end to end for each job, and keep doing
-- so while it fills. A table that never was small is always read by its index.
INSERT INTO job (id, line_id, max_attempts, enqueued_at, kind, payload)
SELECT -n, 0, 1, now(), '', decode(repeat('00', 1000), 'hex') FROM generate_series(1, 1800) AS n;
DELETE FROM job;
INSERT INTO job_ready SELECT 0, n, n, now() FROM generate_series(1, 30000) AS n;
DELETE FROM job_ready;
INSERT INTO job_lease
SELECT n, '', now(), array_fill(n, ARRAY[100]), '{}' FROM generate_series(1, 1000) AS n;
DELETE FROM job_lease;
