-- name: begin_upload
-- A new import whose file is on its way.
INSERT INTO contact_import (id, workspace_id, list_id, file_name, state, mapping)
VALUES ($2, $1, $3, $4, 'uploading', $5::jsonb);

-- name: store_part
-- One part of the file; all but the last are of the same size.
INSERT INTO contact_import_part (import_id, number, workspace_id, bytes) VALUES ($2, $3, $1, $4);

-- name: finish_upload
-- The file is whole and its layout decided: it waits for a worker.
UPDATE contact_import
SET state = 'queued', size_bytes = $3, layout = $4::jsonb, read_bytes = $5, read_lines = $6
WHERE workspace_id = $1 AND id = $2 AND state = 'uploading'
RETURNING id;

-- name: fail_import
-- The file is of no use, for this reason; its parts go.
WITH gone AS (
    DELETE FROM contact_import_part WHERE workspace_id = $1 AND import_id = $2
)
UPDATE contact_import
SET state = 'failed', error = $3, size_bytes = $4, finished_at = now()
WHERE workspace_id = $1 AND id = $2 AND state = 'uploading';

-- name: abandon_uploads
-- Uploads of this workspace that nobody has fed for a day: their process died.
WITH dead AS (
    UPDATE contact_import
    SET state = 'failed', error = 'the upload was never finished', finished_at = now()
    WHERE workspace_id = $1 AND state = 'uploading' AND created_at < now() - interval '1 day'
    RETURNING id
)
DELETE FROM contact_import_part AS part USING dead
WHERE part.workspace_id = $1 AND part.import_id = dead.id;

-- name: get_import
-- One import.
SELECT id, list_id, file_name, state, mapping, size_bytes, read_bytes, read_lines,
       rows_imported, rows_rejected, error, created_at, finished_at
FROM contact_import
WHERE workspace_id = $1 AND id = $2;

-- name: page_imports
-- A page of imports, the newest first, behind import $2.
SELECT id, list_id, file_name, state, mapping, size_bytes, read_bytes, read_lines,
       rows_imported, rows_rejected, error, created_at, finished_at
FROM contact_import
WHERE workspace_id = $1 AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC
LIMIT $3;

-- name: page_rejects
-- A page of an import's rejects in the order of their lines, behind line $3.
SELECT line, reason, row_text
FROM contact_import_reject
WHERE workspace_id = $1 AND import_id = $2 AND line > $3
ORDER BY line
LIMIT $4;

-- name: take_import
-- Make the lease $3 the import's worker; where the one before it stopped. Nothing when the import
-- is over or a younger lease has it.
UPDATE contact_import
SET state = 'running', fence = $3
WHERE workspace_id = $1 AND id = $2 AND state IN ('queued', 'running') AND fence <= $3
RETURNING id, list_id, layout, size_bytes, read_bytes, read_lines, rows_imported, rows_rejected;

-- name: read_part
-- Up to $5 bytes of one part of the file, from its byte $4 on (1 is the first).
SELECT substring(bytes FROM $4::integer FOR $5::integer)
FROM contact_import_part
WHERE workspace_id = $1 AND import_id = $2 AND number = $3;

-- name: advance_import
-- Move the place forward, for the worker under lease $3 only. Nothing when it is not any more.
UPDATE contact_import
SET read_bytes = $4, read_lines = $5,
    rows_imported = rows_imported + $6, rows_rejected = rows_rejected + $7
WHERE workspace_id = $1 AND id = $2 AND fence = $3 AND state = 'running'
RETURNING rows_imported, rows_rejected;

-- name: store_rejects
-- Rows that did not go in.
INSERT INTO contact_import_reject (import_id, line, workspace_id, reason, row_text)
SELECT $2, bad.line, $1, bad.reason, bad.row_text
FROM unnest($3::bigint[], $4::text[], $5::text[]) AS bad (line, reason, row_text)
ON CONFLICT (import_id, line) DO NOTHING;

-- name: finish_import
-- Every row was read; the file goes, the rejects stay.
WITH gone AS (
    DELETE FROM contact_import_part WHERE workspace_id = $1 AND import_id = $2
)
UPDATE contact_import SET state = 'finished', finished_at = now()
WHERE workspace_id = $1 AND id = $2 AND fence = $3 AND state = 'running';
