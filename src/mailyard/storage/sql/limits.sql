-- What a workspace allows itself, and what it has used of that.

-- name: get_limits
-- The limits of a workspace; no row: none.
SELECT time_zone, quiet_from, quiet_until, emails_per_s, emails_per_day, campaigns_per_contact,
       campaigns_days
FROM sending_limits WHERE workspace_id = $1;

-- name: set_limits
-- Writes the limits of a workspace.
INSERT INTO sending_limits (workspace_id, time_zone, quiet_from, quiet_until, emails_per_s,
                            emails_per_day, campaigns_per_contact, campaigns_days)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (workspace_id) DO UPDATE
SET time_zone = excluded.time_zone, quiet_from = excluded.quiet_from,
    quiet_until = excluded.quiet_until, emails_per_s = excluded.emails_per_s,
    emails_per_day = excluded.emails_per_day,
    campaigns_per_contact = excluded.campaigns_per_contact,
    campaigns_days = excluded.campaigns_days;

-- name: get_use
-- What a workspace has used, and the time ($2, or the database's).
SELECT u.day, u.used, u.plan_day, u.plan_used, coalesce($2::timestamptz, clock_timestamp()) AS now
FROM (SELECT 1) AS one LEFT JOIN sending_use u ON u.workspace_id = $1;

-- name: hold_use
-- What the workspaces $1 (sorted, so that two groups do not wait for each other) have used, held
-- until commit, and the time ($2, or the database's, read when the row is held).
INSERT INTO sending_use (workspace_id, day, used, tat)
SELECT workspace_id, 'epoch', 0, 'epoch' FROM unnest($1::uuid[]) AS wanted (workspace_id)
ON CONFLICT (workspace_id) DO UPDATE SET used = sending_use.used
RETURNING workspace_id, day, used, tat, plan_day, plan_used,
          coalesce($2::timestamptz, clock_timestamp()) AS now;

-- name: set_use
-- Writes what the workspaces $1, which are held, have used.
UPDATE sending_use u
SET day = n.day, used = n.used, tat = n.tat, plan_day = n.plan_day, plan_used = n.plan_used
FROM unnest($1::uuid[], $2::date[], $3::bigint[], $4::timestamptz[], $5::date[], $6::bigint[])
    AS n (workspace_id, day, used, tat, plan_day, plan_used)
WHERE u.workspace_id = n.workspace_id;
