-- name: insert_contact
-- A new contact, or nothing when the workspace has the address already.
INSERT INTO contact (id, workspace_id, address, name, attributes)
VALUES ($2, $1, $3, $4, $5::jsonb)
ON CONFLICT (workspace_id, address) DO NOTHING
RETURNING id, address, name, attributes, created_at, updated_at;

-- name: get_contact
-- One contact.
SELECT id, address, name, attributes, created_at, updated_at
FROM contact
WHERE workspace_id = $1 AND id = $2;

-- name: find_contacts
-- A page of contacts, the newest first: behind contact $2, at most $4, with $3 in address or name.
SELECT id, address, name, attributes, created_at, updated_at
FROM contact
WHERE workspace_id = $1
  AND ($2::uuid IS NULL OR id < $2)
  AND ($3 = '' OR strpos(address, lower($3)) > 0 OR strpos(lower(name), lower($3)) > 0)
ORDER BY id DESC
LIMIT $4;

-- name: count_contacts
-- How many contacts the workspace has.
SELECT count(*) FROM contact WHERE workspace_id = $1;

-- name: update_contact
-- Change what is given of a contact (null leaves it as it is).
UPDATE contact
SET name = coalesce($3, name),
    attributes = coalesce($4::jsonb, attributes),
    updated_at = now()
WHERE workspace_id = $1 AND id = $2
RETURNING id, address, name, attributes, created_at, updated_at;

-- name: delete_contacts
-- Remove contacts, their memberships and what they did; the ids that were there.
WITH gone AS (
    DELETE FROM list_member WHERE workspace_id = $1 AND contact_id = ANY ($2::uuid[])
), forgotten AS (
    DELETE FROM contact_event WHERE workspace_id = $1 AND contact_id = ANY ($2::uuid[])
)
DELETE FROM contact WHERE workspace_id = $1 AND id = ANY ($2::uuid[]) RETURNING id;

-- name: upsert_contacts
-- Bring contacts in by address (each once, sorted). A row that would change nothing is not written,
-- so that importing a file again leaves no trace. An empty name keeps the one that stands, and
-- attributes are merged over those that stand.
INSERT INTO contact AS standing (id, workspace_id, address, name, attributes)
SELECT new.id, $1, new.address, new.name, new.attributes::jsonb
FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) AS new (id, address, name, attributes)
ON CONFLICT (workspace_id, address) DO UPDATE
SET name = CASE WHEN excluded.name = '' THEN standing.name ELSE excluded.name END,
    attributes = standing.attributes || excluded.attributes,
    updated_at = now()
WHERE (excluded.name <> '' AND standing.name <> excluded.name)
   OR NOT standing.attributes @> excluded.attributes;

-- name: insert_list
-- A new list, or nothing when the name is taken.
INSERT INTO contact_list (id, workspace_id, name) VALUES ($2, $1, $3)
ON CONFLICT (workspace_id, name) DO NOTHING
RETURNING id;

-- name: get_list
-- One list with the number of its members.
SELECT id, name,
       (SELECT count(*) FROM list_member AS m WHERE m.list_id = l.id AND m.workspace_id = $1) AS members
FROM contact_list AS l
WHERE l.workspace_id = $1 AND l.id = $2;

-- name: find_list_by_name
-- The list of this name.
SELECT id FROM contact_list WHERE workspace_id = $1 AND name = $2;

-- name: page_lists
-- A page of lists with their numbers of members, the newest first, behind list $2.
SELECT id, name,
       (SELECT count(*) FROM list_member AS m WHERE m.list_id = l.id AND m.workspace_id = $1) AS members
FROM contact_list AS l
WHERE l.workspace_id = $1 AND ($2::uuid IS NULL OR l.id < $2)
ORDER BY id DESC
LIMIT $3;

-- name: rename_list
-- Give a list another name.
UPDATE contact_list SET name = $3 WHERE workspace_id = $1 AND id = $2 RETURNING id;

-- name: delete_list
-- Remove a list and its memberships; the contacts stay.
DELETE FROM contact_list WHERE workspace_id = $1 AND id = $2 RETURNING id;

-- name: add_members
-- Put contacts of the workspace into a list; how many were new in it.
WITH added AS (
    INSERT INTO list_member (list_id, contact_id, workspace_id)
    SELECT $2, c.id, $1 FROM contact AS c WHERE c.workspace_id = $1 AND c.id = ANY ($3::uuid[])
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM added;

-- name: add_members_by_address
-- Put contacts into a list by their addresses.
INSERT INTO list_member (list_id, contact_id, workspace_id)
SELECT $2, c.id, $1 FROM contact AS c WHERE c.workspace_id = $1 AND c.address = ANY ($3::text[])
ON CONFLICT DO NOTHING;

-- name: remove_members
-- Take contacts out of a list; how many were in it.
WITH gone AS (
    DELETE FROM list_member
    WHERE workspace_id = $1 AND list_id = $2 AND contact_id = ANY ($3::uuid[])
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: page_members
-- A page of a list's contacts in the order of their ids, behind contact $3.
SELECT c.id, c.address, c.name, c.attributes, c.created_at, c.updated_at
FROM list_member AS m JOIN contact AS c ON c.id = m.contact_id
WHERE m.workspace_id = $1 AND m.list_id = $2 AND c.workspace_id = $1
  AND ($3::uuid IS NULL OR m.contact_id > $3)
ORDER BY m.contact_id
LIMIT $4;
