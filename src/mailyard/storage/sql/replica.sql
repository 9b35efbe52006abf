-- name: head
-- Where the write-ahead log of the primary stands, durable, and on which timeline; an error on a standby.
SELECT (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS position,
       ('x' || left(pg_walfile_name(pg_current_wal_flush_lsn()), 8))::bit(32)::integer AS timeline;

-- name: replayed
-- How far a server has replayed the log, and whether it is a standby at all.
SELECT pg_is_in_recovery() AS standby,
       coalesce((pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint, 0) AS position;

-- name: note_places
-- The callers $1 (in order, so that two statements never wait for one another in a ring) have written until now.
INSERT INTO written_place AS kept (caller, position, written_at)
SELECT caller, (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint, now()
FROM unnest($1::bytea[]) AS caller
ON CONFLICT (caller) DO UPDATE
    SET position = greatest(kept.position, excluded.position), written_at = excluded.written_at
RETURNING caller, position;

-- name: find_places
-- Where the log stands now, and where it stood when each of the callers $1 wrote last.
SELECT asked.caller, (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint AS head, kept.position
FROM unnest($1::bytea[]) AS asked (caller)
LEFT JOIN written_place AS kept ON kept.caller = asked.caller;

-- name: forget_places
-- Those of more than $1 seconds ago: no replica that is read from is so far behind.
DELETE FROM written_place WHERE written_at < now() - make_interval(secs => $1::float8);

-- name: standby_limit
-- How many connections a server gives to ordinary users, and whether it is a standby.
SELECT pg_is_in_recovery() AS standby,
       current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0) AS connections;
