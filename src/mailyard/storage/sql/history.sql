-- History of other systems: where an import stands, and rows that may be there already.

-- name: begin
-- Where the import of the file $3 from the source $2 into workspace $1 stands; it begins if it is new.
INSERT INTO history_import AS own (workspace_id, source, fingerprint) VALUES ($1, $2, $3)
ON CONFLICT (workspace_id, source, fingerprint) DO UPDATE SET source = own.source
RETURNING rows, line, imported, already_there, refused, finished_at;

-- name: restart
-- The import of the file $3 from the source $2 into workspace $1 begins anew.
UPDATE history_import
SET rows = 0, line = 0, imported = 0, already_there = 0, refused = 0, finished_at = NULL
WHERE workspace_id = $1 AND source = $2 AND fingerprint = $3;

-- name: advance
-- It has come to row $5 (line $6), from row $4: so many more were imported ($7), were there ($8), were
-- refused ($9). Nothing comes back where somebody else has moved it meanwhile.
UPDATE history_import
SET rows = $5, line = $6, imported = imported + $7, already_there = already_there + $8,
    refused = refused + $9
WHERE workspace_id = $1 AND source = $2 AND fingerprint = $3 AND rows = $4
RETURNING rows;

-- name: finish
-- The whole file was read.
UPDATE history_import SET finished_at = now()
WHERE workspace_id = $1 AND source = $2 AND fingerprint = $3;

-- name: stage
-- Tables for rows of which some may stand already, until the end of the transaction. They have the
-- columns that are copied, workspace_id among them.
CREATE TEMPORARY TABLE history_staged ON COMMIT DROP AS
    SELECT id, workspace_id, recipient, recipient_key, type, state, attempts, reply, transport,
           queued_at, handed_off_at, updated_at, provider_id
    FROM delivery WITH NO DATA;

-- name: stage_events
-- The same for events, workspace_id among their columns.
CREATE TEMPORARY TABLE history_staged_event ON COMMIT DROP AS
    SELECT delivery_id, seq, workspace_id, at, state, kind, detail, source
    FROM delivery_event WITH NO DATA;

-- name: insert_staged
-- What was staged becomes deliveries of its workspace_id; what stands already stays as it is.
INSERT INTO delivery (id, workspace_id, recipient, recipient_key, type, state, attempts, reply,
                      transport, queued_at, handed_off_at, updated_at, provider_id)
SELECT id, workspace_id, recipient, recipient_key, type, state, attempts, reply, transport,
       queued_at, handed_off_at, updated_at, provider_id
FROM history_staged
ON CONFLICT DO NOTHING;

-- name: insert_staged_events
-- The same for events.  They have a workspace_id too.
INSERT INTO delivery_event (delivery_id, seq, workspace_id, at, state, kind, detail, source)
SELECT delivery_id, seq, workspace_id, at, state, kind, detail, source
FROM history_staged_event
ON CONFLICT DO NOTHING;

-- name: workspaces
-- Up to two workspaces, for who does not say which he means: their workspace_id and name.
SELECT id, name FROM workspace ORDER BY id LIMIT 2;

-- name: workspace_name
-- The name of workspace $1 (workspace_id).
SELECT name FROM workspace WHERE id = $1;
