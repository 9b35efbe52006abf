-- name: hold_mail
-- The inboxes of message $2 of workspace $1, which nobody deletes before the end of the transaction.
SELECT inbox_ids FROM message WHERE workspace_id = $1 AND id = $2 FOR KEY SHARE;

-- name: add_dmarc
-- A report of workspace $2 under the id $1, from a mail in the inboxes $14. One that is there already
-- came to those too, and the answer is null.
WITH added AS (
    INSERT INTO dmarc_report AS known (
        id, workspace_id, domain, organisation, email, report_id, begins_at, ends_at, policy,
        messages, passed, skipped, standing, inbox_ids
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    ON CONFLICT (workspace_id, domain, organisation, report_id, begins_at) DO UPDATE
    SET inbox_ids = ARRAY(
        SELECT DISTINCT unnest(known.inbox_ids || excluded.inbox_ids) ORDER BY 1
    )
    RETURNING id
)
SELECT id FROM added WHERE id = $1;

-- name: add_dmarc_rows
-- The rows of report $1 of workspace $2 on domain $3 and day $4, in order.
INSERT INTO dmarc_row (
    report, place, workspace_id, domain, day, source, messages, disposition, dkim, spf, header_from,
    envelope_from
)
SELECT $1, nth, $2, $3, $4, source, messages, disposition, dkim, spf, header_from, envelope_from
FROM unnest(
    $5::text[], $6::bigint[], $7::text[], $8::boolean[], $9::boolean[], $10::text[], $11::text[]
) WITH ORDINALITY AS given (
    source, messages, disposition, dkim, spf, header_from, envelope_from, nth
);

-- name: add_tls
-- A TLS report in the same way, from a mail in the inboxes $12.
WITH added AS (
    INSERT INTO tls_report AS known (
        id, workspace_id, domain, organisation, report_id, begins_at, ends_at, succeeded, failed,
        failures, standing, inbox_ids
    )
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
    ON CONFLICT (workspace_id, domain, organisation, report_id, begins_at) DO UPDATE
    SET inbox_ids = ARRAY(
        SELECT DISTINCT unnest(known.inbox_ids || excluded.inbox_ids) ORDER BY 1
    )
    RETURNING id
)
SELECT id FROM added WHERE id = $1;

-- name: dmarc_domains
-- What was reported of each domain of workspace $1 since day $2.
SELECT domain, sum(messages)::bigint AS messages,
       coalesce(sum(messages) FILTER (WHERE dkim OR spf), 0)::bigint AS passed,
       count(DISTINCT report) AS reports, max(day) AS last_day
FROM dmarc_row
WHERE workspace_id = $1 AND day >= $2
GROUP BY domain
ORDER BY messages DESC, domain
LIMIT 500;

-- name: dmarc_days
-- What was reported of domain $2 of workspace $1 by day since day $3.
SELECT day, sum(messages)::bigint AS messages,
       coalesce(sum(messages) FILTER (WHERE dkim OR spf), 0)::bigint AS passed,
       coalesce(sum(messages) FILTER (WHERE disposition = 'quarantine'), 0)::bigint AS quarantined,
       coalesce(sum(messages) FILTER (WHERE disposition = 'reject'), 0)::bigint AS rejected
FROM dmarc_row
WHERE workspace_id = $1 AND domain = $2 AND day >= $3
GROUP BY day
ORDER BY day;

-- name: dmarc_sources
-- Where mail of domain $2 of workspace $1 came from since day $3, the most that failed first; up to $4.
SELECT source, sum(messages)::bigint AS messages,
       coalesce(sum(messages) FILTER (WHERE dkim), 0)::bigint AS dkim,
       coalesce(sum(messages) FILTER (WHERE spf), 0)::bigint AS spf,
       coalesce(sum(messages) FILTER (WHERE NOT dkim AND NOT spf), 0)::bigint AS failed
FROM dmarc_row
WHERE workspace_id = $1 AND domain = $2 AND day >= $3
GROUP BY source
ORDER BY failed DESC, messages DESC, source
LIMIT $4;

-- name: dmarc_reports
-- The reports of workspace $1 (of domain $2 unless empty) before the id $3, newest first, up to $4.
SELECT id, domain, organisation, email, report_id, begins_at, ends_at, policy, messages, passed,
       skipped, standing
FROM dmarc_report
WHERE workspace_id = $1 AND ($2 = '' OR domain = $2) AND id < $3
ORDER BY id DESC
LIMIT $4;

-- name: tls_reports
-- The TLS reports of workspace $1 (of domain $2 unless empty) before the id $3, newest first, up to $4.
SELECT id, domain, organisation, report_id, begins_at, ends_at, succeeded, failed, failures, standing
FROM tls_report
WHERE workspace_id = $1 AND ($2 = '' OR domain = $2) AND id < $3
ORDER BY id DESC
LIMIT $4;

-- name: sweep_dmarc
-- Reports of all workspaces that ended before $1.
DELETE FROM dmarc_report WHERE ends_at < $1;

-- name: sweep_tls
-- The same of TLS reports.
DELETE FROM tls_report WHERE ends_at < $1;
