-- name: lock_leases
-- One holder at a time decides about its parts. Given back with the transaction.
SELECT pg_advisory_xact_lock(7217410944);

-- name: time
-- The instant by which leases are judged.
SELECT clock_timestamp();

-- name: read_others
-- The parts of the keys $1 that others than $2 hold at $3. Not a tenant's table: a key names a site.
SELECT key, held, wanted
FROM connection_lease
WHERE key = ANY($1::text[]) AND holder <> $2 AND void_at > $3;

-- name: write_leases
-- The parts of holder $2: of the keys $1 it holds $3 and wants $4, until $5.
INSERT INTO connection_lease AS lease (key, holder, held, wanted, void_at)
SELECT part.key, $2, part.held, part.wanted, $5
FROM unnest($1::text[], $3::integer[], $4::integer[]) AS part (key, held, wanted)
ON CONFLICT (key, holder) DO UPDATE
SET held = excluded.held, wanted = excluded.wanted, void_at = excluded.void_at;

-- name: release_leases
-- Gives back every part of holder $1.
DELETE FROM connection_lease WHERE holder = $1;

-- name: sweep_leases
-- Removes parts that hold nothing, and those that have been void for a minute.
DELETE FROM connection_lease
WHERE void_at < now() - interval '1 minute' OR (held = 0 AND wanted = 0);
