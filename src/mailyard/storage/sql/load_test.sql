-- Load tests of the installation. They are the operator's, and no workspace's.

-- name: add
-- A load test has come to its verdict; with the processes that live now.
INSERT INTO load_test (id, origin, version, recipients, per_second, clean, verdict, processes)
SELECT $1, $2, $3, $4, $5, $6, $7::jsonb,
       (SELECT coalesce(jsonb_object_agg(role, living), '{}')
        FROM (SELECT role, count(*) AS living FROM process
              WHERE seen_at > now() - interval '30 seconds' GROUP BY role) AS roles)
RETURNING id, origin, version, recipients, per_second, clean, verdict, processes;

-- name: list
-- Load tests before $1, the newest first.
SELECT id, origin, version, recipients, per_second, clean, verdict, processes
FROM load_test WHERE id < $1 ORDER BY id DESC LIMIT $2;

-- name: last
-- The newest of those with at least $1 recipients; the newest of all where there is none.
SELECT id, origin, version, recipients, per_second, clean, verdict, processes
FROM load_test ORDER BY recipients >= $1 DESC, id DESC LIMIT 1;
