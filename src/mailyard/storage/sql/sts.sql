-- name: read_policies
-- Policies and failures that changed since $1, after domain $2, at most $3. No tenant's data.
SELECT domain, record_id, mode, max_age_s, mx, fetched_at, failed_id, failed_at
FROM sts_policy
WHERE changed_at >= $1 AND domain > $2
ORDER BY domain
LIMIT $3;

-- name: keep_policy
-- Domain $1 has the policy $3… under record $2, fetched at $6.
INSERT INTO sts_policy AS held (domain, record_id, mode, max_age_s, mx, fetched_at, changed_at)
VALUES ($1, $2, $3, $4, $5, $6, now())
ON CONFLICT (domain) DO UPDATE SET
    record_id = excluded.record_id, mode = excluded.mode, max_age_s = excluded.max_age_s,
    mx = excluded.mx, fetched_at = excluded.fetched_at, failed_id = NULL, failed_at = NULL,
    failure = '', changed_at = excluded.changed_at
WHERE held.fetched_at IS NULL OR held.fetched_at <= excluded.fetched_at;

-- name: keep_failure
-- The fetch of record $2 of domain $1 failed at $3, because of $4. A policy that is held stays.
INSERT INTO sts_policy (domain, failed_id, failed_at, failure, changed_at)
VALUES ($1, $2, $3, $4, now())
ON CONFLICT (domain) DO UPDATE SET
    failed_id = excluded.failed_id, failed_at = excluded.failed_at, failure = excluded.failure,
    changed_at = excluded.changed_at;

-- name: sweep_policies
-- What has run out by $1, and failures from before it.
DELETE FROM sts_policy
WHERE coalesce(fetched_at + make_interval(secs => max_age_s), failed_at + interval '1 day') < $1;
