-- Workspaces on several database clusters (docs/SHARDS.md). Every cluster has all of these tables;
-- the first group is used in the home cluster alone.

-- Where a workspace is; one without a row is at home. Only a move writes here.
CREATE TABLE shard_place (
    workspace_id  uuid PRIMARY KEY,
    shard         text NOT NULL,
    state         text NOT NULL CHECK (state IN ('active', 'moving')),
    epoch         bigint NOT NULL DEFAULT 1,               -- how often it has been switched
    changed_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX shard_place_changed ON shard_place (changed_at);

CREATE TABLE shard_move (
    id            uuid PRIMARY KEY,                        -- its time is when it began
    workspace_id  uuid NOT NULL,
    source        text NOT NULL,
    target        text NOT NULL,
    state         text NOT NULL DEFAULT 'copying'
                  CHECK (state IN ('copying', 'frozen', 'switched', 'done', 'given up')),
    frozen_at     timestamptz,
    switched_at   timestamptz,
    ended_at      timestamptz,
    rows_moved    bigint,
    trouble       text
);
CREATE UNIQUE INDEX shard_move_open ON shard_move (workspace_id)
    WHERE state IN ('copying', 'frozen', 'switched');

-- How far the live part of a move has got: behind which key of each table.
CREATE TABLE shard_progress (
    move_id     uuid NOT NULL REFERENCES shard_move ON DELETE CASCADE,
    table_name  text NOT NULL,
    behind      text[],                                    -- null: nothing yet
    rows        bigint NOT NULL DEFAULT 0,
    finished    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (move_id, table_name)
);

-- The cluster that a workspace leaves: what its rows may still do there. The row stays when the
-- workspace has left, so that a process which has not heard of it writes nothing.
CREATE TABLE shard_fence (
    workspace_id  uuid PRIMARY KEY,
    state         text NOT NULL CHECK (state IN ('copying', 'closed')),
    since         timestamptz NOT NULL DEFAULT now()
);
-- Keys of rows that changed while their table was copied.
CREATE TABLE shard_change (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    workspace_id  uuid NOT NULL,
    table_name    text NOT NULL,
    key           text[] NOT NULL
);
CREATE INDEX shard_change_of ON shard_change (workspace_id, id);
-- Jobs that nobody is given while their workspace leaves, and when each is due.
CREATE TABLE shard_held_job (
    job_id        bigint PRIMARY KEY,
    workspace_id  uuid NOT NULL,
    run_at        timestamptz NOT NULL
);
-- The cluster that a workspace comes to: it is all here. Written with the last rows.
CREATE TABLE shard_arrival (
    workspace_id  uuid PRIMARY KEY,
    move_id       uuid NOT NULL,
    at            timestamptz NOT NULL DEFAULT now(),
    rows_moved    bigint NOT NULL
);

-- What a row of a leaving workspace goes through; `owner` is the workspace, the first argument the
-- table (a partition's trigger is its parent's) and the others its key. An AFTER trigger: its
-- transaction has a number by then, so whoever closes the fence knows whom to wait for.
CREATE FUNCTION shard_guard_row(
    owner uuid, operation text, old_row record, new_row record, arguments text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    fence text;
    columns text;
BEGIN
    SELECT state INTO fence FROM shard_fence WHERE workspace_id = owner;
    IF NOT FOUND OR current_setting('mailyard.shard_mover', true) = owner::text THEN
        RETURN;
    END IF;
    IF fence = 'closed' THEN
        RAISE EXCEPTION 'workspace % moves to another cluster, or has moved', owner
            USING ERRCODE = 'MY001';
    END IF;
    IF cardinality(arguments) < 2 THEN
        RETURN;  -- copied while nothing changes
    END IF;
    SELECT string_agg(format('($1).%I::text', name), ', ' ORDER BY nth) INTO columns
    FROM unnest(arguments[2:]) WITH ORDINALITY AS key (name, nth);
    IF operation <> 'INSERT' THEN
        EXECUTE format('INSERT INTO shard_change (workspace_id, table_name, key) '
                       'VALUES ($2, $3, ARRAY[%s])', columns) USING old_row, owner, arguments[1];
    END IF;
    IF operation <> 'DELETE' THEN
        EXECUTE format('INSERT INTO shard_change (workspace_id, table_name, key) '
                       'VALUES ($2, $3, ARRAY[%s])', columns) USING new_row, owner, arguments[1];
    END IF;
END
$$;

CREATE FUNCTION shard_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM shard_fence
               WHERE workspace_id = NEW.workspace_id OR workspace_id = OLD.workspace_id) THEN
        IF TG_OP <> 'DELETE' THEN
            PERFORM shard_guard_row(NEW.workspace_id, TG_OP, OLD, NEW, ARRAY(SELECT unnest(TG_ARGV)));
        END IF;
        IF TG_OP = 'DELETE'
           OR TG_OP = 'UPDATE' AND OLD.workspace_id IS DISTINCT FROM NEW.workspace_id THEN
            PERFORM shard_guard_row(OLD.workspace_id, TG_OP, OLD, NEW, ARRAY(SELECT unnest(TG_ARGV)));
        END IF;
    END IF;
    RETURN NULL;
END
$$;

-- The same for the table of the workspaces themselves.
CREATE FUNCTION shard_guard_workspace() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM shard_fence WHERE workspace_id = NEW.id OR workspace_id = OLD.id) THEN
        PERFORM shard_guard_row(coalesce(NEW.id, OLD.id), TG_OP, OLD, NEW, ARRAY(SELECT unnest(TG_ARGV)));
    END IF;
    RETURN NULL;
END
$$;

-- A mail that has moved to another cluster takes its blob with it: the store is one.
CREATE OR REPLACE FUNCTION note_gone_blob() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('mailyard.shard_mover', true) IS DISTINCT FROM OLD.workspace_id::text THEN
        INSERT INTO blob_gone (key, workspace_id) VALUES (OLD.blob, OLD.workspace_id)
        ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;
