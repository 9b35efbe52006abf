-- name: take
-- Moves bucket $1 on by $2 seconds if that stays within $3 seconds of $4 (null: the database's
-- time). A row means taken, and says how many seconds from now the bucket is full again. Not a tenant's table: the caller's key names whose bucket it is.
INSERT INTO rate_bucket AS bucket (key, tat)
VALUES ($1, coalesce($4::timestamptz, clock_timestamp()) + make_interval(secs => $2::float8))
ON CONFLICT (key) DO UPDATE
SET tat = greatest(bucket.tat, coalesce($4::timestamptz, clock_timestamp()))
          + make_interval(secs => $2::float8)
WHERE greatest(bucket.tat, coalesce($4::timestamptz, clock_timestamp()))
      + make_interval(secs => $2::float8)
      <= coalesce($4::timestamptz, clock_timestamp())
         + make_interval(secs => $3::float8 + 0.000001)
RETURNING extract(epoch FROM tat - coalesce($4::timestamptz, clock_timestamp()))::float8;

-- name: wait
-- Seconds until $2 seconds fit into bucket $1 again within $3 seconds.
SELECT extract(epoch FROM tat - coalesce($4::timestamptz, clock_timestamp()))::float8
       + $2::float8 - $3::float8
FROM rate_bucket
WHERE key = $1;

-- name: fill_many
-- Makes the buckets of the keys $1 that do not exist yet, full at $2 (null: the database's time).
INSERT INTO rate_bucket (key, tat)
SELECT one.key, coalesce($2::timestamptz, statement_timestamp())
FROM unnest($1::text[]) AS one (key)
ORDER BY one.key
ON CONFLICT (key) DO NOTHING;

-- name: take_many
-- As `take` for each of the keys $1, with the seconds $2 and $3 of its own, at $4. A row for each:
-- whether it was taken, the wait if not, and how far from full the bucket is if it was. The rows are
-- locked in the order of their keys, so that two batches do not wait for each other.
WITH locked AS (
    SELECT bucket.key,
           greatest(bucket.tat, coalesce($4::timestamptz, statement_timestamp())) AS tat
    FROM rate_bucket AS bucket
    WHERE bucket.key = ANY($1::text[])
    ORDER BY bucket.key
    FOR UPDATE
),
moved AS (
    SELECT locked.key,
           locked.tat + make_interval(secs => one.step_s) AS tat,
           extract(epoch FROM locked.tat - coalesce($4::timestamptz, statement_timestamp()))::float8
           + one.step_s - one.allowed_s AS wait_s
    FROM locked
    JOIN unnest($1::text[], $2::float8[], $3::float8[]) AS one (key, step_s, allowed_s) USING (key)
),
taken AS (
    UPDATE rate_bucket AS bucket
    SET tat = moved.tat
    FROM moved
    WHERE bucket.key = moved.key AND moved.wait_s <= 0.000001
)
SELECT moved.key,
       moved.wait_s <= 0.000001 AS taken,
       moved.wait_s,
       extract(epoch FROM moved.tat - coalesce($4::timestamptz, statement_timestamp()))::float8
       AS ahead_s
FROM moved;

-- name: sweep
-- Removes buckets that have been full for a minute.
DELETE FROM rate_bucket WHERE tat < now() - interval '1 minute';

-- name: forget
-- Fills the buckets $1 again. Not a tenant's table: the caller's key names whose bucket it is.
DELETE FROM rate_bucket WHERE key = ANY($1::text[]);
