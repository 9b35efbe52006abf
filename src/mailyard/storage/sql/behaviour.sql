-- What contacts did.

-- name: record_events
-- Events of contacts that are there, each once however often it is said. They go in in the order of
-- the index, which two batches with the same events in them lock in the same order.
INSERT INTO contact_event (id, workspace_id, contact_id, kind, delivery_id, campaign_id, properties)
SELECT e.id, e.workspace_id, e.contact_id, e.kind, e.delivery_id, e.campaign_id, e.properties::jsonb
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::uuid[], $7::text[])
    AS e (id, workspace_id, contact_id, kind, delivery_id, campaign_id, properties)
JOIN contact c ON c.id = e.contact_id AND c.workspace_id = e.workspace_id
ORDER BY e.contact_id, e.kind, e.id
ON CONFLICT DO NOTHING;

-- name: find_contacts_by_address
-- The contacts behind normalised addresses.
SELECT id, address FROM contact WHERE workspace_id = $1 AND address = ANY ($2::text[]);

-- name: find_contacts_by_id
-- Which of these are contacts of the workspace.
SELECT id FROM contact WHERE workspace_id = $1 AND id = ANY ($2::uuid[]);

-- name: page_events
-- What a contact did, the newest first, ids below $3.
SELECT id, workspace_id, contact_id, kind, delivery_id, campaign_id, properties::text
FROM contact_event
WHERE workspace_id = $1 AND contact_id = $2 AND id < $3
ORDER BY id DESC
LIMIT $4;
