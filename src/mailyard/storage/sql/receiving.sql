-- name: find_routes
-- The living inboxes behind the normalised addresses $1. Not by workspace: an address is what
-- decides whose mail it is. One index descent an address, in the one hash partition that can hold it.
SELECT route.address, route.workspace_id, route.inbox_id, route.retention_days
FROM unnest($1::text[]) AS asked (address)
CROSS JOIN LATERAL (
    SELECT address.address, address.workspace_id, address.inbox_id, address.retention_days
    FROM address
    WHERE address.address = asked.address
      AND (address.expires_at IS NULL OR address.expires_at > now())
    OFFSET 0
) AS route;

-- name: find_stored
-- Which of the messages $1 are stored, whosever they are: asked by the accepting process about its
-- own ids, after a commit whose answer was lost. $2 and $3 are the lowest and highest of $1.
SELECT id
FROM message
WHERE id = ANY($1::uuid[]) AND id BETWEEN $2 AND $3;
