-- name: insert_run
-- A run that waits for a worker.
INSERT INTO demo_run (id, workspace_id, recipients, state)
VALUES ($2, $1, $3, 'queued')
RETURNING id, recipients, state, stage, done, verdict, error, created_at;

-- name: latest_run
-- The workspace's youngest run.
SELECT id, recipients, state, stage, done, verdict, error, created_at
FROM demo_run WHERE workspace_id = $1
ORDER BY id DESC LIMIT 1;

-- name: get_run
-- One run.
SELECT id, recipients, state, stage, done, verdict, error, created_at
FROM demo_run WHERE workspace_id = $1 AND id = $2;

-- name: page_runs
-- A page of runs, the newest first, behind run $2.
SELECT id, recipients, state, stage, done, verdict, error, created_at
FROM demo_run
WHERE workspace_id = $1 AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3;

-- name: take_run
-- A worker begins it, or begins it anew where another has died.
UPDATE demo_run SET state = 'running', stage = '', done = 0
WHERE workspace_id = $1 AND id = $2 AND state IN ('queued', 'running')
RETURNING recipients;

-- name: move_run
-- How far it is.
UPDATE demo_run SET stage = $3, done = $4
WHERE workspace_id = $1 AND id = $2 AND state = 'running';

-- name: finish_run
-- Its verdict.
UPDATE demo_run SET state = 'finished', stage = '', done = recipients, verdict = $3::jsonb
WHERE workspace_id = $1 AND id = $2 AND state = 'running';

-- name: fail_run
-- Why there is no verdict.
UPDATE demo_run SET state = 'failed', stage = '', error = $3
WHERE workspace_id = $1 AND id = $2 AND state IN ('queued', 'running');
