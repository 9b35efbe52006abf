-- What workspaces use, and the plans that bound it.

-- name: plan_of
-- The name of a workspace's plan.
SELECT plan FROM workspace WHERE id = $1;

-- name: set_plan
-- Gives a workspace another plan; the one it had.
UPDATE workspace new SET plan = $2 FROM workspace old
WHERE new.id = $1 AND old.id = new.id
RETURNING old.plan AS plan_before;

-- name: used
-- What a workspace has used on the UTC day $2 by kind, folded or not.
SELECT kind, sum(amount)::bigint AS amount
FROM (
    SELECT kind, amount FROM usage_day WHERE workspace_id = $1 AND day = $2
    UNION ALL
    SELECT CASE name WHEN 'received' THEN 'messages' ELSE 'sends' END, amount
    FROM counter_delta
    WHERE workspace_id = $1 AND subject = $1 AND name IN ('received', 'delivery.accepted')
      AND minute >= $2::timestamp AT TIME ZONE 'UTC'
      AND minute < ($2::timestamp + interval '1 day') AT TIME ZONE 'UTC'
) AS amounts
GROUP BY kind;

-- name: days
-- What a workspace has used on each of the UTC days $2, as far as it is folded (seconds ago).
SELECT day, kind, amount FROM usage_day
WHERE day = ANY($2::date[]) AND workspace_id = $1;

-- name: hold_inboxes
-- Until the end of the transaction nobody else makes inboxes in the workspace.
SELECT pg_advisory_xact_lock(7102, hashtext($1::uuid::text));

-- name: count_inboxes
-- How many inboxes of a workspace live at $2, counted no further than to $3.
SELECT count(*) FROM (
    SELECT FROM inbox
    WHERE workspace_id = $1 AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > $2)
    LIMIT $3
) AS living;

-- name: used_up
-- Workspaces that received on the UTC day $1 at least what their plan allows: the plans' names $2
-- with their numbers $3; $4 names them all, and $5 is for whoever has a name that is not among them.
-- Over all workspaces: the listener asks, who does not know yet whose mail will come.
SELECT u.workspace_id
FROM usage_day u JOIN workspace w ON w.id = u.workspace_id
LEFT JOIN unnest($2::text[], $3::bigint[]) AS plan (name, most) ON plan.name = w.plan
WHERE u.day = $1 AND u.kind = 'messages' AND w.plan <> ''
  AND u.amount >= CASE WHEN w.plan = ANY($4::text[]) THEN plan.most ELSE $5::bigint END;

-- name: beyond
-- Workspaces with a plan and what they used on the UTC day $1 by kind: who looks after limits asks.
SELECT u.workspace_id, w.plan, u.kind, u.amount
FROM usage_day u JOIN workspace w ON w.id = u.workspace_id
WHERE u.day = $1 AND w.plan <> '';

-- name: note
-- Remembers that a workspace is being told; no row when it was told before.
INSERT INTO usage_notice (workspace_id, day, kind, level) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING true;

-- name: forget_notices
-- Forgets what was told before the day $1.
DELETE FROM usage_notice WHERE day < $1;

-- name: owners
-- The addresses of a workspace's owners.
SELECT u.email FROM membership m JOIN user_account u ON u.id = m.user_id
WHERE m.workspace_id = $1 AND m.role = 'owner' ORDER BY u.id LIMIT 20;

-- name: workspaces_by_plan
-- How many workspaces have each plan, and how many of them signed up, at all and since $1: the
-- operator's figures.
SELECT plan, count(*) AS workspaces, count(signed_up_at) AS signed_up,
       count(*) FILTER (WHERE signed_up_at >= $1) AS signed_up_lately
FROM workspace GROUP BY plan;

-- name: sign_ups_by_day
-- Sign-ups by UTC day since $1: the operator's figures.
SELECT (signed_up_at AT TIME ZONE 'UTC')::date AS day, count(*) AS amount
FROM workspace WHERE signed_up_at >= $1 GROUP BY 1;

-- name: amounts_by_day
-- What all workspaces used together by UTC day since $1: the operator's figures.
SELECT day, kind, sum(amount)::bigint AS amount FROM usage_day WHERE day >= $1 GROUP BY day, kind;

-- name: active_inboxes
-- How many inboxes of all workspaces live: the operator's figures.
SELECT count(*) FROM address WHERE expires_at IS NULL OR expires_at > $1;
