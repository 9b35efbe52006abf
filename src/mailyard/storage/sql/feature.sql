-- name: rollouts
-- How far the features have come that somebody has said something about. They come to all workspaces.
SELECT name, percent, changed_at FROM feature_rollout;

-- name: roll_out
-- The feature $1 comes to $2 percent of the workspaces.
INSERT INTO feature_rollout (name, percent) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET percent = excluded.percent, changed_at = now();

-- name: workspaces
-- Up to $1 workspaces, oldest first: among them is counted who has a feature.
SELECT id FROM workspace ORDER BY id LIMIT $1;
