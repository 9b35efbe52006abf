-- name: publish
-- Stores batches of events: workspaces $1, kinds $2, JSON arrays of items $3.
INSERT INTO live_event (workspace_id, kind, items)
SELECT workspace_id, kind, items
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS batch (workspace_id, kind, items);

-- name: read_after
-- Up to $3 rows at or behind the place ($1, $2), of all workspaces (the process fans them out by
-- workspace), below the oldest transaction that still runs: what is above may yet change order.
SELECT xid::text::bigint AS xid, id, workspace_id, kind, items
FROM live_event
WHERE (xid, id) >= ($1::bigint::text::xid8, $2::bigint)
  AND xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY live_event.xid, live_event.id
LIMIT $3;

-- name: newest
-- The last settled row and how many events it holds, of all workspaces.
SELECT xid::text::bigint AS xid, id, json_array_length(items::json) AS items
FROM live_event
WHERE xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY live_event.xid DESC, live_event.id DESC
LIMIT 1;

-- name: oldest
-- The first row that is still kept, of all workspaces.
SELECT xid::text::bigint AS xid, id
FROM live_event
ORDER BY live_event.xid, live_event.id
LIMIT 1;

-- name: read_workspace_after
-- As read_after, of workspace $4 alone: what a listener reads that comes back after a pause.
SELECT xid::text::bigint AS xid, id, workspace_id, kind, items
FROM live_event
WHERE (xid, id) >= ($1::bigint::text::xid8, $2::bigint)
  AND xid < pg_snapshot_xmin(pg_current_snapshot())
  AND workspace_id = $4
ORDER BY live_event.xid, live_event.id
LIMIT $3;
