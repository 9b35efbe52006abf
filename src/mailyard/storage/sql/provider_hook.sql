-- Where providers send their events to.

-- name: add_hook
-- A new endpoint.
INSERT INTO provider_hook (id, workspace_id, kind, name, token_hash, sealed_secret)
VALUES ($2, $1, $3, $4, $5, $6);

-- name: get_hook
-- One endpoint.
SELECT id, workspace_id, kind, name, confirmed_at FROM provider_hook
WHERE workspace_id = $1 AND id = $2;

-- name: list_hooks
-- Newest first, ids below $2.
SELECT id, workspace_id, kind, name, confirmed_at FROM provider_hook
WHERE workspace_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: remove_hook
-- Takes an endpoint away.
DELETE FROM provider_hook WHERE workspace_id = $1 AND id = $2
RETURNING id, workspace_id, kind, name, confirmed_at;

-- name: set_secret
-- Another secret for an endpoint.
UPDATE provider_hook SET sealed_secret = $3 WHERE workspace_id = $1 AND id = $2;

-- name: confirm_hook
-- The provider's subscription stands.
UPDATE provider_hook SET confirmed_at = now() WHERE workspace_id = $1 AND id = $2;

-- name: find_hook
-- The endpoint with the hashed token $1, which says whose workspace_id its events are.
SELECT id, workspace_id, kind, sealed_secret FROM provider_hook WHERE token_hash = $1;

-- name: see_signatures
-- Notes signatures of the endpoints $1 ($2 each, forgotten after $3); returns those that are new.
INSERT INTO provider_hook_seen (hook_id, signature, until)
SELECT hook_id, signature, until
FROM unnest($1::uuid[], $2::bytea[], $3::timestamptz[]) AS seen (hook_id, signature, until)
ORDER BY hook_id, signature
ON CONFLICT DO NOTHING
RETURNING hook_id, signature;

-- name: sweep_seen
-- Forgets up to $2 signatures that are too old; how many.
WITH gone AS (
    DELETE FROM provider_hook_seen
    WHERE (hook_id, signature) IN (
        SELECT hook_id, signature FROM provider_hook_seen WHERE until < $1
        ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: sealed_otherwise
-- Up to $2 secrets that were sealed under another master key than $1, whosever they are.
SELECT id, sealed_secret FROM provider_hook
WHERE substr(sealed_secret, 2, 4) <> $1 LIMIT $2;

-- name: seal_anew
-- The secrets $1, where they still are $2, as $3.
UPDATE provider_hook h SET sealed_secret = n.fresh
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS n (id, stale, fresh)
WHERE h.id = n.id AND h.sealed_secret = n.stale;
