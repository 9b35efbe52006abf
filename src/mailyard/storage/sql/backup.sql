-- name: server
-- What a backup wants to know of the server, on a connection to the platform's database.
SELECT current_setting('server_version_num')::int / 10000 AS major,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_id,
       pg_size_bytes(current_setting('wal_segment_size')) AS segment_bytes,
       current_database()::text AS database,
       (SELECT max(number) FROM schema_migration) AS schema;

-- name: slot
-- Where the slot $1 holds the log back; no row when there is none, null when it was given up.
SELECT CASE WHEN wal_status = 'lost' THEN NULL
            ELSE (restart_lsn - '0/0'::pg_lsn)::bigint END AS position
FROM pg_replication_slots WHERE slot_name = $1;

-- name: make_slot
-- A slot that holds the log from now on; where.
SELECT (lsn - '0/0'::pg_lsn)::bigint AS position
FROM pg_create_physical_replication_slot($1, true);

-- name: drop_slot
-- The log is held back no more.
SELECT pg_drop_replication_slot($1);

-- name: advance_slot
-- The log before $2 is safe elsewhere.
SELECT pg_replication_slot_advance($1, '0/0'::pg_lsn + $2::bigint);

-- name: timeline
-- The timeline that the server writes.
SELECT ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::integer;

-- name: add_run
-- A backup, or a trial restore, that has come to its end.
INSERT INTO backup_run (id, kind, started_at, finished_at, good, stored_bytes, detail)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: add_bad_run
-- One that went wrong; what fails again and again is told once an hour.
INSERT INTO backup_run (id, kind, started_at, finished_at, good, stored_bytes, detail)
SELECT $1, $2, $3, $4, false, 0, $5
WHERE NOT EXISTS (SELECT FROM backup_run
                  WHERE kind = $2 AND NOT good AND finished_at > $4::timestamptz - interval '1 hour');

-- name: last_good
-- When the last good one of each kind ended.
SELECT kind, max(finished_at) AS finished_at FROM backup_run WHERE good GROUP BY kind;

-- name: lock_store
-- Whoever makes a store holds this for its session.
SELECT pg_advisory_lock(7217410945);

-- name: used_store
-- Whether the store $1 has had a backup of ours.
SELECT EXISTS (SELECT FROM backup_run WHERE good AND detail ->> 'store' = $1);

-- name: runs
-- The newest $1 runs.
SELECT id, kind, started_at, finished_at, good, stored_bytes, detail
FROM backup_run ORDER BY id DESC LIMIT $1;

-- name: forget_runs
-- Those that ended before $1.
DELETE FROM backup_run WHERE finished_at < $1;

-- name: said
-- What a restored database is looked at for: how many there are of what always stays, and how fresh it is.
SELECT (SELECT count(*) FROM workspace) AS workspaces,
       (SELECT count(*) FROM user_account) AS people,
       (SELECT count(*) FROM schema_migration) AS migrations,
       (SELECT max(seen_at) FROM process) AS seen_at,
       pg_last_xact_replay_timestamp() AS replayed_at;
