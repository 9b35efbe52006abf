-- Statements on the tables of `storage.derived.DERIVED`: names $1, each with the column $2 that its
-- ranges are cut on.

-- name: say_move_of_inbox
-- Workspace $1, inbox $2, from class $3 to the longer class $4. Nothing in an inbox is older than it.
SELECT format(
    'UPDATE %I SET retention_days = $4::smallint '
    'WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3::smallint '
    'AND %I >= (left($2::text, 14) || ''7000-8000-000000000000'')::uuid',
    name, key
) AS statement
FROM unnest($1::text[], $2::text[]) AS derived (name, key);

-- name: say_move_of_messages
-- Workspace $1, messages $2 with the lowest $3 and the highest $4, to the longer class $5.
SELECT format(
    'UPDATE %I SET retention_days = $5::smallint '
    'WHERE workspace_id = $1 AND %I = ANY($2::uuid[]) AND %2$I BETWEEN $3 AND $4 '
    'AND retention_days <> $5::smallint AND retention_days <> 0 '
    'AND ($5::smallint = 0 OR retention_days < $5::smallint)',
    name, key
) AS statement
FROM unnest($1::text[], $2::text[]) AS derived (name, key);

-- name: say_delete_of_inboxes
-- Workspace $1, inboxes $2 with the lowest $3.
SELECT format(
    'DELETE FROM %I WHERE workspace_id = $1 AND inbox_id = ANY($2::uuid[]) '
    'AND %I >= (left($3::uuid::text, 14) || ''7000-8000-000000000000'')::uuid',
    name, key
) AS statement
FROM unnest($1::text[], $2::text[]) AS derived (name, key);

-- name: say_delete_of_messages
-- Workspace $1, messages $2 with the lowest $3 and the highest $4.
SELECT format(
    'DELETE FROM %I WHERE workspace_id = $1 AND %I = ANY($2::uuid[]) AND %2$I BETWEEN $3 AND $4',
    name, key
) AS statement
FROM unnest($1::text[], $2::text[]) AS derived (name, key);

-- name: say_delete_of_lines
-- Workspace $1, inboxes $2 with the messages $3 of the same places, the lowest inbox $4, message $5.
SELECT format(
    'DELETE FROM %I AS held USING unnest($2::uuid[], $3::uuid[]) AS gone (inbox_id, message_id) '
    'WHERE held.workspace_id = $1 '
    'AND held.inbox_id = gone.inbox_id AND held.message_id = gone.message_id '
    'AND held.inbox_id >= $4 AND held.message_id >= $5',
    name
) AS statement
FROM unnest($1::text[], $2::text[]) AS derived (name, key);
