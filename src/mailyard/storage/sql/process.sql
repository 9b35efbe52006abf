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

-- name: still_leading
-- Whether $2 is the present epoch of the duty $1.
SELECT EXISTS (SELECT FROM leader WHERE duty = $1 AND epoch = $2);

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
