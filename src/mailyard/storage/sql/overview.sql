-- name: minute_series
-- Amounts of the counters $2 of a workspace by minute since $3, folded or not.
SELECT minute, name, sum(amount)::bigint AS amount
FROM (
    SELECT minute, name, amount FROM counter
    WHERE workspace_id = $1 AND subject = $1 AND name = ANY($2::text[]) AND minute >= $3
    UNION ALL
    SELECT minute, name, amount FROM counter_delta
    WHERE workspace_id = $1 AND subject = $1 AND name = ANY($2::text[]) AND minute >= $3
) AS amounts
GROUP BY minute, name
ORDER BY minute;

-- name: totals
-- Amounts of all counters of a workspace since $2, folded or not.
SELECT name, sum(amount)::bigint AS amount
FROM (
    SELECT name, amount FROM counter WHERE workspace_id = $1 AND subject = $1 AND minute >= $2
    UNION ALL
    SELECT name, amount FROM counter_delta
    WHERE workspace_id = $1 AND subject = $1 AND minute >= $2
) AS amounts
GROUP BY name;

-- name: live_processes
-- Role processes that gave a sign within the last 30 s; they serve every workspace.
SELECT role, host, pid, started_at, stats
FROM process
WHERE seen_at > now() - interval '30 seconds'
ORDER BY role, started_at;
