-- name: add_results
-- Sessions of day $1 by domain, policy, host and result.
INSERT INTO tls_result AS held (day, domain, policy_type, host, result, sessions)
SELECT * FROM unnest($1::date[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
    AS new (day, domain, policy_type, host, result, sessions)
ORDER BY 1, 2, 3, 4, 5
ON CONFLICT (day, domain, policy_type, host, result) DO UPDATE
SET sessions = held.sessions + excluded.sessions;

-- name: list_results
-- The results of day $1 behind the names $2, $4, $5, $6; at most $3. No tenant's data.
SELECT domain, policy_type, host, result, sessions
FROM tls_result
WHERE day = $1 AND (domain, policy_type, host, result) > ($2, $4, $5, $6)
ORDER BY domain, policy_type, host, result
LIMIT $3;

-- name: results_of
-- The results of day $1 for domain $2.
SELECT domain, policy_type, host, result, sessions
FROM tls_result
WHERE day = $1 AND domain = $2
ORDER BY policy_type, host, result;

-- name: unreported
-- The domains of day $1 that have no report yet; of what failed those with fewer than $2 tries. At
-- most $3. No tenant's data.
SELECT DISTINCT tls_result.domain
FROM tls_result
LEFT JOIN tls_report_sent AS done ON done.day = tls_result.day AND done.domain = tls_result.domain
WHERE tls_result.day = $1
  AND (done.domain IS NULL OR (done.outcome = 'failed' AND done.tries < $2))
ORDER BY tls_result.domain
LIMIT $3;

-- name: note_report
-- What became of the report of day $1 to domain $2. No tenant's data.
INSERT INTO tls_report_sent (day, domain, outcome, detail)
VALUES ($1, $2, $3, $4)
ON CONFLICT (day, domain) DO UPDATE
SET outcome = excluded.outcome, detail = excluded.detail, tries = tls_report_sent.tries + 1,
    at = now();

-- name: workspace_of_sender
-- The workspace that sends from the domain $1, the first that did: whose mail our reports are.
SELECT workspace_id FROM domain WHERE name = $1 ORDER BY id LIMIT 1;

-- name: sweep_reported
-- What is older than day $1. No tenant's data.
DELETE FROM tls_report_sent WHERE day < $1;

-- name: sweep_results
-- What is older than day $1.
DELETE FROM tls_result WHERE day < $1;
