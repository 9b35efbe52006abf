-- name: keep
-- The verdicts on messages $1 of the workspaces $3, into the classes $2 that these lie in: standings
-- $4, details $5. One that stands already stays.
INSERT INTO verdict (message_id, retention_days, workspace_id, standing, detail)
SELECT message_id, retention_days, workspace_id, standing, detail
FROM unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::text[], $5::text[])
     AS judged (message_id, retention_days, workspace_id, standing, detail)
ON CONFLICT DO NOTHING;

-- name: keep_late
-- As keep, wherever the messages $1 of the workspaces $2 lie by now (standings $3, details $4); $5 and
-- $6 are the lowest and highest of $1. Says of which message it is there, in which class.
INSERT INTO verdict (message_id, retention_days, workspace_id, standing, detail)
SELECT message.id, message.retention_days, message.workspace_id, judged.standing, judged.detail
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[])
     AS judged (message_id, workspace_id, standing, detail)
JOIN message ON message.id = judged.message_id AND message.workspace_id = judged.workspace_id
WHERE message.id BETWEEN $5 AND $6
ON CONFLICT (message_id, retention_days) DO UPDATE
SET standing = excluded.standing, detail = excluded.detail
RETURNING message_id, retention_days;

-- name: get
-- The verdict on message $2 of workspace $1.
SELECT standing, detail
FROM verdict
WHERE workspace_id = $1 AND message_id = $2;

-- name: standings
-- What the messages $2 of workspace $1 stand as; $3 and $4 are the lowest and highest of $2.
SELECT message_id, standing
FROM verdict
WHERE workspace_id = $1 AND message_id = ANY($2::uuid[]) AND message_id BETWEEN $3 AND $4;

-- name: keeping_out
-- Which of the inboxes $2 of the workspaces $1 keep forged mail out, with their classes. Where none
-- does, of whatever workspace, that is known before any of them is looked for.
SELECT DISTINCT inbox_id, retention_days
FROM address
WHERE EXISTS (SELECT FROM address WHERE on_forged <> 0)
  AND workspace_id = ANY($1::uuid[]) AND inbox_id = ANY($2::uuid[]) AND on_forged = 2
  AND (expires_at IS NULL OR expires_at > now());

-- name: policy
-- What inbox $2 of workspace $1 does with forged mail.
SELECT on_forged
FROM address
WHERE workspace_id = $1 AND address = $3 AND inbox_id = $2;

-- name: policy_by_inbox
-- The same where only the inbox is known: null when it takes all.
SELECT max(on_forged)
FROM address
WHERE workspace_id = $1 AND inbox_id = $2 AND on_forged <> 0;

-- name: set_policy
-- Lets inbox $2 of workspace $1, whose address is $3, do $4 with forged mail; what it did before.
UPDATE address
SET on_forged = $4
FROM (
    SELECT address AS own, on_forged AS before
    FROM address
    WHERE workspace_id = $1 AND address = $3 AND inbox_id = $2
    FOR UPDATE
) AS old
WHERE address.workspace_id = $1 AND address.address = old.own
RETURNING old.before;

-- name: hold
-- Keeps messages $2 of the workspaces $4 out of the inboxes $1 (classes $3), as $5 says; what the list
-- shows is $6 to $10.
INSERT INTO held_message (
    inbox_id, message_id, retention_days, workspace_id, state, recipient, from_address, from_name,
    subject, size_bytes
)
SELECT * FROM unnest(
    $1::uuid[], $2::uuid[], $3::smallint[], $4::uuid[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::integer[]
)
ON CONFLICT DO NOTHING;

-- name: held
-- What inbox $2 (class $3) of workspace $1 keeps out, newest first, before message $4, up to $5.
SELECT message_id, state, recipient, from_address, from_name, subject, size_bytes
FROM held_message
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND message_id < $4
ORDER BY message_id DESC
LIMIT $5;

-- name: waiting
-- Where the messages $2 of workspace $1 wait for their verdict; $3 and $4 are the lowest and highest
-- of $2. They stay as they are until the end of the transaction.
SELECT inbox_id, message_id
FROM held_message
WHERE workspace_id = $1 AND message_id = ANY($2::uuid[]) AND message_id BETWEEN $3 AND $4
  AND state = 'waiting'
FOR UPDATE;

-- name: refuse
-- The messages $3 of workspace $1 are refused in the inboxes $2, for good.
UPDATE held_message
SET state = 'refused'
FROM unnest($2::uuid[], $3::uuid[]) AS place (inbox_id, message_id)
WHERE held_message.workspace_id = $1
  AND held_message.inbox_id = place.inbox_id AND held_message.message_id = place.message_id;

-- name: let_go
-- The messages $3 of workspace $1 are kept out of the inboxes $2 no longer; those that were.
DELETE FROM held_message
USING unnest($2::uuid[], $3::uuid[]) AS place (inbox_id, message_id)
WHERE held_message.workspace_id = $1
  AND held_message.inbox_id = place.inbox_id AND held_message.message_id = place.message_id
RETURNING held_message.inbox_id, held_message.message_id;

-- name: load
-- The messages $2 of workspace $1 with their bytes, whatever class they lie in; $3 and $4 are the
-- lowest and highest of $2.
SELECT id, workspace_id, retention_days, recipients, inbox_ids, size_bytes, filed_under, raw,
       reverse_path, helo, peer, blob
FROM message
WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id BETWEEN $3 AND $4;
