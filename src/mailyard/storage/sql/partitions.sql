-- name: lock
-- One process at a time makes or drops partitions; released with the transaction.
SELECT pg_advisory_xact_lock(7217410943);

-- name: try_lock_session
-- The same lock for a session, without waiting: whoever does not get it leaves the work to another.
SELECT pg_try_advisory_lock(7217410943);

-- name: limit_lock_wait
-- No DDL waits longer than this for a lock: behind it, every reader and writer would wait too.
SELECT set_config('lock_timeout', $1, $2);

-- name: attached
-- The tables that are partitions now, with the parent of each and whether a detach was cut short.
SELECT child.relname::text AS name, parent.relname::text AS parent, link.inhdetachpending AS detaching
FROM pg_inherits link
JOIN pg_class child ON child.oid = link.inhrelid
JOIN pg_class parent ON parent.oid = link.inhparent
WHERE child.relnamespace = current_schema()::regnamespace AND child.relkind IN ('r', 'p');

-- name: left_behind
-- Tables named like partitions ($1, a regular expression) that belong to no parent.
SELECT relname::text AS name
FROM pg_class
WHERE relnamespace = current_schema()::regnamespace
  AND relkind IN ('r', 'p') AND NOT relispartition AND relname ~ $1;

-- name: at_work_since
-- Since when there is mail that waits to be sent, or a campaign that is not over; null: since now.
-- A mail's ids, which say where it lies, are drawn before its row is written, by another clock.
SELECT least(
    (SELECT min(queued_at) - interval '1 hour' FROM delivery WHERE state IN ('queued', 'deferred')),
    (SELECT min(first_started_at) FROM campaign WHERE state IN ('running', 'paused'))
);

-- name: say_range
-- The statements that make range partition $2 of $1 from $3 to $4, standing alone and then attached.
SELECT format('CREATE TABLE IF NOT EXISTS %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE)', $2::text, $1::text)
    || CASE WHEN $5::text = '' THEN '' ELSE ' WITH (' || $5::text || ')' END
    || format('; ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', $1::text, $2::text, $3::text, $4::text);

-- name: say_class
-- The statements that make the retention class $2 of $1 for $3 days, itself parted by range on $4.
SELECT format('CREATE TABLE IF NOT EXISTS %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE) PARTITION BY RANGE (%I)', $2::text, $1::text, $4::text)
    || format('; ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%L)', $1::text, $2::text, $3::text);

-- name: say_hash
-- The statements that make hash partition $2 of $1: remainder $4 of modulus $3.
SELECT format('CREATE TABLE IF NOT EXISTS %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE)', $2::text, $1::text)
    || format('; ALTER TABLE %I ATTACH PARTITION %I FOR VALUES WITH (MODULUS %s, REMAINDER %s)', $1::text, $2::text, $3::integer, $4::integer);

-- name: say_detach
-- The statement that takes partition $2 out of $1 while readers and writers go on.
SELECT format('ALTER TABLE %I DETACH PARTITION %I ', $1::text, $2::text)
    || CASE WHEN $3::boolean THEN 'FINALIZE' ELSE 'CONCURRENTLY' END;

-- name: say_drop
-- The statement that drops the detached partition $1.
SELECT format('DROP TABLE IF EXISTS %I', $1::text);
