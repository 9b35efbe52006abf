-- name: claim
-- Takes a key for $4 seconds; no row when another request has it or has answered under it.
-- Status 0 means in progress. An expired row is taken over.
INSERT INTO idempotency_key AS held (workspace_id, key, body_hash, status, answer, expires_at)
VALUES ($1, $2, $3, 0, '', now() + make_interval(secs => $4))
ON CONFLICT (workspace_id, key) DO UPDATE
   SET body_hash = excluded.body_hash, status = 0, answer = '', expires_at = excluded.expires_at
 WHERE held.expires_at <= now()
RETURNING true;

-- name: look
-- What stands under a key.
SELECT body_hash, status, answer FROM idempotency_key
 WHERE workspace_id = $1 AND key = $2 AND expires_at > now();

-- name: finish
-- Stores the answer of a request in progress, for $6 seconds.
UPDATE idempotency_key
   SET status = $4, answer = $5, expires_at = now() + make_interval(secs => $6)
 WHERE workspace_id = $1 AND key = $2 AND body_hash = $3 AND status = 0
RETURNING true;

-- name: abandon
-- Gives a key back: the request came to nothing, the next one with the key runs.
DELETE FROM idempotency_key
 WHERE workspace_id = $1 AND key = $2 AND body_hash = $3 AND status = 0;

-- name: sweep
-- Removes what has expired, in every workspace.
DELETE FROM idempotency_key WHERE expires_at <= now();
