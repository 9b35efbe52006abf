-- Whom a workspace does not write to: `all` mail, or `campaign` mail only.

-- name: add_suppressions
-- Adds addresses; those that stand already keep their first reason. Returns the new ones.
INSERT INTO suppression (id, workspace_id, address, stream, reason, source, evidence)
SELECT id, $1, address, $4, $5, $6, $7 FROM unnest($2::uuid[], $3::text[]) AS new (id, address)
ON CONFLICT (workspace_id, address, stream) DO NOTHING
RETURNING id, workspace_id, address, stream, reason, source, evidence, delivery_id;

-- name: stop_addresses
-- Adds what follows from bounces, complaints and unsubscribes of many workspaces; how many are new.
WITH added AS (
    INSERT INTO suppression (id, workspace_id, address, stream, reason, source, evidence, delivery_id)
    SELECT id, workspace_id, address, stream, reason, source, evidence, delivery_id
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                $8::uuid[])
        AS new (id, workspace_id, address, stream, reason, source, evidence, delivery_id)
    ON CONFLICT (workspace_id, address, stream) DO NOTHING
    RETURNING 1
)
SELECT count(*) FROM added;

-- name: remove_suppression
-- Takes one off the list.
DELETE FROM suppression WHERE workspace_id = $1 AND id = $2
RETURNING id, workspace_id, address, stream, reason, source, evidence, delivery_id;

-- name: lift_bounced
-- Takes the addresses $2 off the list that stand there because they were nobody's.
DELETE FROM suppression WHERE workspace_id = $1 AND address = ANY ($2::text[]) AND reason = 'hard_bounce';

-- name: get_suppression
-- One entry.
SELECT id, workspace_id, address, stream, reason, source, evidence, delivery_id
FROM suppression
WHERE workspace_id = $1 AND id = $2;

-- name: list_suppressions
-- Newest first, ids below $2; $3, $5 and $6 narrow to an address, a stream, a reason.
SELECT id, workspace_id, address, stream, reason, source, evidence, delivery_id
FROM suppression
WHERE workspace_id = $1 AND id < $2 AND ($3::text IS NULL OR address = $3)
  AND ($5::text IS NULL OR stream = $5) AND ($6::text IS NULL OR reason = $6)
ORDER BY id DESC LIMIT $4;

-- name: check_suppressions
-- Which of the pairs (workspace $1, normalised address $2) may not get mail of stream $3.
SELECT DISTINCT s.workspace_id, s.address
FROM unnest($1::uuid[], $2::text[]) AS asked (workspace_id, address)
JOIN suppression s ON s.workspace_id = asked.workspace_id AND s.address = asked.address
                  AND s.stream IN ('all', $3);
