-- Blobs and the rows that name them. A key says its owner (storage/blob.py), so a row is found by id.

-- name: gone
-- Up to $1 blobs, of every workspace_id, whose row was deleted or has moved, before $2 (null: until
-- now), the oldest first.
SELECT key, workspace_id FROM blob_gone
WHERE $2::timestamptz IS NULL OR gone_at < $2
ORDER BY gone_at LIMIT $1;

-- name: gone_keys
-- Those of the keys $1, of every workspace_id, that wait to be deleted.
SELECT key FROM blob_gone WHERE key = ANY ($1::text[]);

-- name: gone_of
-- The same of workspace $1, up to $2.
SELECT key, workspace_id FROM blob_gone WHERE workspace_id = $1 ORDER BY gone_at LIMIT $2;

-- name: named
-- Those of the keys $3 that the messages, or the emails, $2 of the workspaces $1 (of the same places)
-- name. $4 and $5 are the lowest and highest of $2. An email has the key behind a byte 1 in the place
-- of its content.
SELECT message.blob AS key
FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS asked (workspace_id, id, key)
JOIN message ON message.id = asked.id AND message.workspace_id = asked.workspace_id
            AND message.blob = asked.key
WHERE message.id BETWEEN $4 AND $5
UNION ALL
SELECT asked.key
FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS asked (workspace_id, id, key)
JOIN email ON email.id = asked.id AND email.workspace_id = asked.workspace_id
          AND email.content = '\x01'::bytea || convert_to(asked.key, 'UTF8')
WHERE email.id BETWEEN $4 AND $5;

-- name: known
-- Those of the workspaces $1 that are in this database.
SELECT id AS workspace_id FROM workspace WHERE id = ANY ($1::uuid[]);

-- name: settle
-- The blobs $1 of the workspaces $2 (of the same places) are gone, or are named again.
DELETE FROM blob_gone USING unnest($1::text[], $2::uuid[]) AS done (key, workspace_id)
WHERE blob_gone.key = done.key AND blob_gone.workspace_id = done.workspace_id;

-- name: waiting
-- How many blobs, of every workspace_id, wait to be deleted.
SELECT count(*) FROM blob_gone;
