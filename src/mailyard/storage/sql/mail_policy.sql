-- Whom workspaces take mail from.

-- name: all
-- Every policy, of all workspaces: what a listener goes by.
SELECT workspace_id, allowed, blocked, source_per_minute, greylist_s, spam_tag_at, spam_refuse_at
FROM mail_policy;

-- name: get
-- The policy of workspace $1.
SELECT workspace_id, allowed, blocked, source_per_minute, greylist_s, spam_tag_at, spam_refuse_at
FROM mail_policy WHERE workspace_id = $1;

-- name: set
-- Sets the policy of workspace $1 as a whole.
INSERT INTO mail_policy (
    workspace_id, allowed, blocked, source_per_minute, greylist_s, spam_tag_at, spam_refuse_at
) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (workspace_id) DO UPDATE
SET allowed = excluded.allowed, blocked = excluded.blocked,
    source_per_minute = excluded.source_per_minute, greylist_s = excluded.greylist_s,
    spam_tag_at = excluded.spam_tag_at, spam_refuse_at = excluded.spam_refuse_at;

-- name: try_stranger
-- How many seconds ago the stranger $2 tried for workspace $1 first; 0 when this is the first time.
INSERT INTO greylist (workspace_id, key) VALUES ($1, $2)
ON CONFLICT (workspace_id, key) DO UPDATE SET last_at = now()
RETURNING extract(epoch FROM now() - first_at)::double precision AS waited_s;

-- name: sweep
-- Strangers (any workspace_id) who have not written for $1 days.
DELETE FROM greylist WHERE last_at < now() - make_interval(days => $1);
