-- name: get_entries
-- The values of the keys $2 that have not run out.
SELECT key, value FROM cache_entry
WHERE workspace_id = $1 AND key = ANY($2::text[]) AND expires_at > now();

-- name: put_entries
-- Keeps values for $4 seconds; keys come in order, so that two writers never wait in a circle.
INSERT INTO cache_entry (workspace_id, key, value, expires_at)
SELECT $1, e.key, e.value, now() + make_interval(secs => $4)
FROM unnest($2::text[], $3::bytea[]) AS e (key, value)
ON CONFLICT (workspace_id, key) DO UPDATE
SET value = excluded.value, expires_at = excluded.expires_at;

-- name: drop_entries
-- Forgets values.
DELETE FROM cache_entry WHERE workspace_id = $1 AND key = ANY($2::text[]);

-- name: expired_entries
-- Frees up to $1 entries that have run out, in every workspace.
DELETE FROM cache_entry AS gone USING (
    SELECT workspace_id, key FROM cache_entry
    WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
) AS due WHERE gone.workspace_id = due.workspace_id AND gone.key = due.key;
