-- What alerts, the autoscaler and the pages about the installation read and write. None of it is a
-- workspace's: it is the operator's.

-- name: living
-- Role processes that gave a sign within the last 30 s, with the time by the database's clock.
SELECT id, role, host, pid, stats,
       extract(epoch FROM now() - started_at)::float8 AS up_s,
       extract(epoch FROM seen_at)::float8 AS seen_s,
       extract(epoch FROM now())::float8 AS now_s
FROM process
WHERE seen_at > now() - interval '30 seconds'
ORDER BY role, started_at, id;

-- name: database_facts
-- Connections of clients, and how far the slowest replica is behind (null without one).
SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int
           AS connections,
       (SELECT max(extract(epoch FROM coalesce(replay_lag, '0')))::float8
        FROM pg_stat_replication WHERE application_name NOT LIKE 'pg_basebackup%') AS lag_s;

-- name: add_decision
-- A decision of the autoscaler with all that it was made from.
INSERT INTO scale_decision (id, actuator, group_name, kind, was, became, wanted, reason, inputs)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb);

-- name: list_decisions
-- Decisions before $1, the newest first, of the group $2 where it is given.
SELECT id, actuator, group_name, kind, was, became, wanted, reason, inputs
FROM scale_decision
WHERE id < $1 AND ($2::text IS NULL OR group_name = $2)
ORDER BY id DESC LIMIT $3;

-- name: forget_decisions
-- Decisions before $1 are old.
DELETE FROM scale_decision WHERE id < $1;

-- name: open_alerts
-- Alerts that have not ended.
SELECT id, rule, subject, level, value, since, started_at
FROM alert WHERE ended_at IS NULL ORDER BY id;

-- name: raise_alert
-- An alert begins; nothing when another scheduler was faster.
INSERT INTO alert (id, rule, subject, level, worst, value, since, about)
VALUES ($1, $2, $3, $4, $4, $5, $6, $7)
ON CONFLICT (rule, subject) WHERE ended_at IS NULL DO NOTHING
RETURNING id;

-- name: change_alert
-- An alert goes to another level, from the one that it was known to have.
UPDATE alert SET level = $3, value = $4, worst = CASE WHEN $3 = 'critical' THEN $3 ELSE worst END,
                 changed_at = now()
WHERE id = $1 AND level = $2 AND ended_at IS NULL
RETURNING id;

-- name: end_alert
-- What an alert was about is over.
UPDATE alert SET ended_at = now(), value = $2, changed_at = now()
WHERE id = $1 AND ended_at IS NULL
RETURNING id;

-- name: list_alerts
-- Alerts before $1, the newest first; with $2 only those that have not ended.
SELECT id, rule, subject, level, worst, value, about, since, started_at, changed_at, ended_at
FROM alert
WHERE id < $1 AND (NOT $2::boolean OR ended_at IS NULL)
ORDER BY id DESC LIMIT $3;

-- name: forget_alerts
-- Alerts before $1 that have ended are old.
DELETE FROM alert WHERE id < $1 AND ended_at IS NOT NULL;

-- name: add_notices
-- What is to be told of the alert $1, over the channels $3.
INSERT INTO alert_notice (alert_id, event, channel, value)
SELECT $1, $2, channel, $4 FROM unnest($3::text[]) AS channel;

-- name: due_notices
-- Notices that nobody is telling just now; they are this caller's for $1 seconds.
UPDATE alert_notice AS n SET due_at = now() + make_interval(secs => $1::float8), tries = tries + 1
FROM alert AS a
WHERE n.id IN (
    SELECT id FROM alert_notice WHERE sent_at IS NULL AND due_at <= now() AND tries < $2
    ORDER BY id LIMIT $3 FOR UPDATE SKIP LOCKED
) AND a.id = n.alert_id
RETURNING n.id, n.alert_id, n.event, n.channel, n.tries, n.value, n.at,
          a.rule, a.subject, a.about, a.started_at, a.since;

-- name: notice_sent
-- The notice $1 has been told.
UPDATE alert_notice SET sent_at = now(), error = '' WHERE id = $1;

-- name: notice_failed
-- The notice $1 was not told, for $2; again in $3 seconds.
UPDATE alert_notice SET error = $2, due_at = now() + make_interval(secs => $3::float8)
WHERE id = $1;

-- name: notices_of
-- What was told of the alerts $1.
SELECT alert_id, event, channel, at, sent_at, tries, error
FROM alert_notice WHERE alert_id = ANY ($1::uuid[]) ORDER BY id;

-- name: destinations
-- The destinations with the most answers: how many mails they took, put off and refused.
SELECT place, sum(accepted)::bigint AS accepted, sum(later)::bigint AS later,
       sum(never)::bigint AS refused
FROM shaping_site
GROUP BY place ORDER BY sum(accepted + later + never) DESC LIMIT $1;
