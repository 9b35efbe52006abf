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

-- name: sweep
-- Removes buckets that have been full for a minute.
DELETE FROM rate_bucket WHERE tat < now() - interval '1 minute';
