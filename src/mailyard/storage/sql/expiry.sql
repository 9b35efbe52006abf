-- name: expired_addresses
-- Frees up to $1 addresses whose inbox has run out, in every workspace; the inbox itself leaves
-- with its partition.
DELETE FROM address AS gone USING (
    SELECT address FROM address
    WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
) AS due WHERE gone.address = due.address;

-- name: outlived_lines
-- Up to $2 lines, in every workspace, whose message has left with its partition before their inbox
-- does: those of class $1. Its partition goes when the youngest message in it is so old.
SELECT workspace_id, inbox_id, message_id
FROM inbox_message
WHERE message_retention_days = $1::smallint AND message_retention_days <> 0
  AND (retention_days = 0 OR retention_days > message_retention_days)
  AND message_id < lowest_id_at(
      date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - make_interval(days => $1::integer))
ORDER BY message_id
LIMIT $2;

-- name: deleted_lines
-- Up to $2 lines, in every workspace, that were deleted more than $1 seconds ago.
SELECT workspace_id, inbox_id, message_id
FROM inbox_message
WHERE deleted_at IS NOT NULL AND deleted_at < now() - make_interval(secs => $1)
LIMIT $2;

-- name: drop_lines
-- Deletes the lines of workspace $1 of the messages $3 in the inboxes $2 of the same places. $4 and $5
-- are the lowest and highest of $3.
DELETE FROM inbox_message AS line
USING unnest($2::uuid[], $3::uuid[]) AS gone (inbox_id, message_id)
WHERE line.workspace_id = $1
  AND line.inbox_id = gone.inbox_id AND line.message_id = gone.message_id
  AND line.message_id BETWEEN $4 AND $5;

-- name: unstored
-- Those of the messages $2 of workspace $1 that are stored no more. $3 and $4 are the lowest and
-- highest of $2.
SELECT asked.id
FROM unnest($2::uuid[]) AS asked (id)
WHERE NOT EXISTS (
    SELECT FROM message
    WHERE message.workspace_id = $1 AND message.id = asked.id AND message.id BETWEEN $3 AND $4
);
