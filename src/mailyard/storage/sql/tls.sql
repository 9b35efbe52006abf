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

-- name: sweep_results
-- What is older than day $1.
DELETE FROM tls_result WHERE day < $1;
