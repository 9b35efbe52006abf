-- name: beat
-- A process lives and tells how it is; it comes back by itself if it was taken for dead.
INSERT INTO process (id, role, host, pid, stats) VALUES ($1, $2, $3, $4, $5::jsonb)
ON CONFLICT (id) DO UPDATE SET seen_at = now(), stats = excluded.stats;

-- name: remove
-- It has ended in good order.
DELETE FROM process WHERE id = $1;

-- name: present
-- The processes that have given a sign within the last $1 seconds; they serve every workspace.
SELECT id, role, host, pid, stats ->> 'live' AS live
FROM process WHERE seen_at > now() - make_interval(secs => $1::float8);

-- name: reap
-- Forgets the processes that have not been heard of for $1 seconds.
DELETE FROM process WHERE seen_at < now() - make_interval(secs => $1::float8) RETURNING id;

-- name: try_lead
-- The one lock of the duty $1; held as long as the session lives.
SELECT pg_try_advisory_lock(hashtextextended('mailyard duty ' || $1::text, 7217410944));

-- name: take_epoch
-- A new leader of the duty $1: its number is larger than that of all before it.
INSERT INTO leader (duty, epoch, holder) VALUES ($1, 1, $2)
ON CONFLICT (duty) DO UPDATE SET epoch = leader.epoch + 1, holder = excluded.holder
RETURNING epoch;

-- name: renew_lease
-- The leader of the duty $1 with the epoch $2 lives; nothing when another leads by now.
UPDATE leader SET lease_epoch = $2, renewed_at = clock_timestamp()
WHERE duty = $1 AND epoch = $2
RETURNING true;

-- name: unseat
-- Ends the session that holds the lock of the duty $1 when its leader has not renewed its lease for
-- $2 seconds. One that has none (of a version before leases) is left alone.
SELECT pg_terminate_backend(held.pid)
FROM leader JOIN pg_locks held
    ON held.locktype = 'advisory' AND held.granted AND held.objsubid = 1
    AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (held.classid::bigint << 32) | held.objid::bigint
        = hashtextextended('mailyard duty ' || $1::text, 7217410944)
WHERE leader.duty = $1 AND leader.lease_epoch = leader.epoch
  AND leader.renewed_at < clock_timestamp() - make_interval(secs => $2::float8);

-- name: hold_epoch
-- Whether $2 is the present epoch of the duty $1; it stays so until the transaction ends, which it
-- does by itself when nothing comes for 5 s.
SELECT set_config('idle_in_transaction_session_timeout', '5s', true) IS NOT NULL
FROM leader WHERE duty = $1 AND epoch = $2 FOR SHARE OF leader;

-- name: server_limit
-- How many connections the server gives to ordinary users.
SELECT current_setting('max_connections')::int
     - current_setting('superuser_reserved_connections')::int
     - coalesce(current_setting('reserved_connections', true)::int, 0);

-- name: server_facts
-- What a check of the installation wants to know of the server.
SELECT current_setting('server_version_num')::int AS version,
       current_setting('fsync') = 'on' AS fsync,
       current_setting('synchronous_commit') <> 'off' AS synchronous_commit,
       pg_is_in_recovery() AS replica,
       has_schema_privilege(current_user, current_schema(), 'CREATE') AS may_create,
       now() AS now;

-- name: first_workspace
-- The workspace whose people run the installation.
SELECT id FROM workspace ORDER BY id LIMIT 1;

-- name: backend
-- Which process of the server answers.
SELECT pg_backend_pid();
