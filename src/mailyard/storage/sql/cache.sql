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

-- name: add_change
-- What carries one of the tags $2 in workspace $1 is no longer so, as of this transaction's commit.
WITH gone AS (
    DELETE FROM cache_result WHERE workspace_id = $1 AND tags && $2::text[]
)
INSERT INTO cache_change (workspace_id, tags) VALUES ($1, $2::text[]);

-- name: snapshot
-- What is visible now, in every workspace; no content.
SELECT pg_current_snapshot()::text;

-- name: changes_since
-- What has become visible since the snapshot $1, in every workspace: tags that were named, and live
-- events of the kinds $2. Always a row at least, for `seen`; up to $3.
SELECT pg_current_snapshot()::text AS seen, told.workspace_id, told.tags, told.kind, told.items
FROM (SELECT $1::text::pg_snapshot AS before) AS last
LEFT JOIN LATERAL (
    SELECT workspace_id, tags, NULL::text AS kind, NULL::text AS items
    FROM cache_change
    WHERE xid >= pg_snapshot_xmin(last.before) AND NOT pg_visible_in_snapshot(xid, last.before)
    UNION ALL
    SELECT workspace_id, NULL, kind, items
    FROM live_event
    WHERE xid >= pg_snapshot_xmin(last.before) AND NOT pg_visible_in_snapshot(xid, last.before)
      AND at > now() - interval '1 hour' AND kind = ANY($2::text[])
) AS told ON true
LIMIT $3;

-- name: changed_since
-- Whether workspace $1 was told of one of the tags $2 by a transaction that the snapshot $3 did not see.
SELECT EXISTS (
    SELECT FROM cache_change
    WHERE workspace_id = $1 AND tags && $2::text[]
      AND NOT pg_visible_in_snapshot(xid, $3::text::pg_snapshot)
);

-- name: get_result
-- The result of workspace $1 of the kind $2 under the key $3, unless it has run out or was made before
-- a change that names one of its tags.
SELECT value, extract(epoch FROM expires_at - now())::float8 AS left_s
FROM cache_result AS found
WHERE workspace_id = $1 AND kind = $2 AND key = $3
  AND (expires_at IS NULL OR expires_at > now())
  AND NOT EXISTS (
      SELECT FROM cache_change AS change
      WHERE change.workspace_id = $1 AND change.tags && found.tags
        AND NOT pg_visible_in_snapshot(change.xid, found.made)
  );

-- name: put_result
-- Keeps a result of workspace $1: kind $2, key $3, value $4, tags $5, made with what the snapshot $6 saw
-- or more, for $7 seconds (null: for ever).
INSERT INTO cache_result (workspace_id, kind, key, value, tags, made, expires_at)
VALUES ($1, $2, $3, $4, $5::text[], $6::text::pg_snapshot, now() + make_interval(secs => $7::float8))
ON CONFLICT (workspace_id, kind, key) DO UPDATE
SET value = excluded.value, tags = excluded.tags, made = excluded.made,
    expires_at = excluded.expires_at;

-- name: sweep_results
-- Frees up to $1 results that have run out, in every workspace.
DELETE FROM cache_result AS gone USING (
    SELECT workspace_id, kind, key FROM cache_result
    WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
) AS due
WHERE gone.workspace_id = due.workspace_id AND gone.kind = due.kind AND gone.key = due.key;

-- name: trim_results
-- Of the results that would run out some day, those beyond the newest $1 go, in every workspace.
DELETE FROM cache_result
WHERE expires_at < (
    SELECT expires_at FROM cache_result WHERE expires_at IS NOT NULL
    ORDER BY expires_at DESC OFFSET $1 LIMIT 1
);

-- name: forget_changes
-- Changes of every workspace that are older than $1 seconds leave, with results that were stored
-- beside them, made before them.
WITH old AS (
    DELETE FROM cache_change WHERE at < now() - make_interval(secs => $1::float8)
    RETURNING workspace_id, tags, xid
)
DELETE FROM cache_result AS stale USING old
WHERE stale.workspace_id = old.workspace_id AND stale.tags && old.tags
  AND NOT pg_visible_in_snapshot(old.xid, stale.made);

-- name: clear_entries
-- Forgets all values, of every workspace.
DELETE FROM cache_entry;

-- name: clear_results
-- Forgets all results, of every workspace.
DELETE FROM cache_result;
