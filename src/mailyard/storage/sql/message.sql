-- A line's `deleted_at` is the instant from which on it is gone; while that is to come, the line is
-- shown, and its mail ends then.

-- part: stands
-- How a line stands; one without a state is new.
       coalesce(state.thread_id, line.message_id) AS thread_id,
       coalesce(state.folder, 'inbox') AS folder, coalesce(state.labels, '{}') AS labels,
       coalesce(state.seen, false) AS seen, coalesce(state.starred, false) AS starred

-- part: beside
-- The state of a line.
LEFT JOIN LATERAL (
    SELECT thread_id, folder, labels, seen, starred
    FROM line_state
    WHERE line_state.inbox_id = line.inbox_id AND line_state.message_id = line.message_id
      AND line_state.retention_days = line.retention_days
      AND line_state.workspace_id = line.workspace_id
    OFFSET 0
) AS state ON true

-- name: list
-- The mail of inbox $2 (class $3) of workspace $1 with ids in [$4, $5), newest first, up to $6, whose
-- sender holds $7 and whose subject holds $8, any case; empty holds always.
SELECT line.inbox_id, line.message_id, line.recipient, line.from_address, line.from_name,
       line.subject, line.preview, line.sent_at, line.header_message_id, line.size_bytes,
       line.attachments, line.message_retention_days, line.deleted_at AS expires_at,
-- use: stands
FROM inbox_message AS line
-- use: beside
WHERE line.workspace_id = $1 AND line.inbox_id = $2 AND line.retention_days = $3
  AND line.message_id >= $4 AND line.message_id < $5
  AND (line.deleted_at IS NULL OR line.deleted_at > now())
  AND ($7::text = '' OR strpos(lower(line.from_address || ' ' || line.from_name), lower($7)) > 0)
  AND ($8::text = '' OR strpos(lower(line.subject), lower($8)) > 0)
ORDER BY line.message_id DESC
LIMIT $6;

-- name: first
-- The oldest of the same: the mail of inbox $2 (class $3) of workspace $1 with an id above $4 whose
-- sender holds $5 and whose subject holds $6.
SELECT line.inbox_id, line.message_id, line.recipient, line.from_address, line.from_name,
       line.subject, line.preview, line.sent_at, line.header_message_id, line.size_bytes,
       line.attachments, line.message_retention_days, line.deleted_at AS expires_at,
-- use: stands
FROM inbox_message AS line
-- use: beside
WHERE line.workspace_id = $1 AND line.inbox_id = $2 AND line.retention_days = $3
  AND line.message_id > $4
  AND (line.deleted_at IS NULL OR line.deleted_at > now())
  AND ($5::text = '' OR strpos(lower(line.from_address || ' ' || line.from_name), lower($5)) > 0)
  AND ($6::text = '' OR strpos(lower(line.subject), lower($6)) > 0)
ORDER BY line.message_id
LIMIT 1;

-- name: newest_of_many
-- The newest mail, up to $5 each, of the living inboxes among $2 of workspace $1. $3 and $4 are the
-- lowest and highest of $2. No message is older than its inbox: `lowest` is the first id of that
-- inbox's millisecond.
WITH own AS MATERIALIZED (
    SELECT id, retention_days,
           greatest(
               (left(id::text, 14) || '7000-8000-000000000000')::uuid,
               lowest_id_at(now() - make_interval(secs => message_ttl_s))
           ) AS lowest
    FROM inbox
    WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id BETWEEN $3 AND $4
      AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
)
SELECT line.*,
-- use: stands
FROM own
CROSS JOIN LATERAL (
    SELECT inbox_id, message_id, recipient, from_address, from_name, subject, preview, sent_at,
           header_message_id, size_bytes, attachments, message_retention_days,
           deleted_at AS expires_at, inbox_message.workspace_id, inbox_message.retention_days
    FROM inbox_message
    WHERE inbox_message.workspace_id = $1
      AND inbox_message.inbox_id = own.id
      AND inbox_message.retention_days = own.retention_days
      AND inbox_message.message_id >= own.lowest
      AND (deleted_at IS NULL OR deleted_at > now())
    ORDER BY inbox_message.message_id DESC
    LIMIT $5
) AS line
-- use: beside
;

-- name: count
-- How much mail lies in the living inboxes of workspace $1 with the label $2, or in all when that is
-- empty. By their ids as an array, so that no plan joins the two, whatever it takes their sizes for.
SELECT count(*)
FROM inbox_message
WHERE workspace_id = $1 AND (deleted_at IS NULL OR deleted_at > now())
  AND inbox_id = ANY(ARRAY(
      SELECT id
      FROM inbox
      WHERE workspace_id = $1 AND ($2::text = '' OR $2 = ANY(labels))
        AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
  ));

-- name: get
-- The message $2 of workspace $1 as a living inbox of it shows it: inbox $3 unless that is null.
SELECT line.inbox_id, line.message_id, line.recipient, line.from_address, line.from_name,
       line.subject, line.preview, line.sent_at, line.header_message_id, line.size_bytes,
       line.attachments, line.deleted_at AS expires_at, message.reverse_path, message.peer,
       message.helo, message.raw, message.blob,
-- use: stands
FROM message
CROSS JOIN LATERAL unnest(message.inbox_ids) AS place (inbox_id)
JOIN inbox_message AS line
  ON line.inbox_id = place.inbox_id AND line.message_id = message.id
JOIN inbox ON inbox.id = line.inbox_id AND inbox.retention_days = line.retention_days
-- use: beside
WHERE message.workspace_id = $1 AND message.id = $2
  AND line.message_id = $2 AND line.workspace_id = $1 AND inbox.workspace_id = $1
  AND ($3::uuid IS NULL OR line.inbox_id = $3)
  AND (line.deleted_at IS NULL OR line.deleted_at > now())
  AND (inbox.message_ttl_s IS NULL
       OR message.id >= lowest_id_at(now() - make_interval(secs => inbox.message_ttl_s)))
  AND inbox.deleted_at IS NULL AND (inbox.expires_at IS NULL OR inbox.expires_at > now())
ORDER BY line.inbox_id
LIMIT 1;

-- name: delete_lines
-- Takes the messages $2 of workspace $1 out of their inboxes (out of inbox $3 alone unless that is
-- null), and says which. $4 and $5 are the lowest and highest of $2.
UPDATE inbox_message
SET deleted_at = now()
FROM message
CROSS JOIN LATERAL unnest(message.inbox_ids) AS place (inbox_id)
WHERE message.workspace_id = $1 AND message.id = ANY($2::uuid[]) AND message.id BETWEEN $4 AND $5
  AND inbox_message.workspace_id = $1
  AND inbox_message.inbox_id = place.inbox_id AND inbox_message.message_id = message.id
  AND inbox_message.message_id BETWEEN $4 AND $5
  AND ($3::uuid IS NULL OR inbox_message.inbox_id = $3)
  AND (inbox_message.deleted_at IS NULL OR inbox_message.deleted_at > now())
RETURNING inbox_message.message_id, inbox_message.inbox_id, inbox_message.retention_days;

-- name: delete_bytes
-- Deletes the messages $2 of workspace $1 that no inbox shows any more, and none keeps out. $3
-- and $4 are the lowest and highest of $2.
DELETE FROM message
WHERE message.workspace_id = $1 AND message.id = ANY($2::uuid[]) AND message.id BETWEEN $3 AND $4
  AND NOT EXISTS (
      SELECT FROM unnest(message.inbox_ids) AS place (inbox_id)
      JOIN inbox_message
        ON inbox_message.inbox_id = place.inbox_id AND inbox_message.message_id = message.id
      WHERE inbox_message.workspace_id = $1 AND inbox_message.message_id BETWEEN $3 AND $4
        AND (inbox_message.deleted_at IS NULL OR inbox_message.deleted_at > now())
  )
  AND NOT EXISTS (
      SELECT FROM unnest(message.inbox_ids) AS place (inbox_id)
      JOIN held_message
        ON held_message.inbox_id = place.inbox_id AND held_message.message_id = message.id
      WHERE held_message.workspace_id = $1 AND held_message.message_id BETWEEN $3 AND $4
  );

-- name: export_lines
-- The mail of the living inbox $2 of workspace $1 after the message $3, the oldest first, up to $4.
SELECT line.inbox_id, line.message_id, line.from_address, line.size_bytes,
       line.message_retention_days
FROM inbox
JOIN inbox_message AS line
  ON line.inbox_id = inbox.id AND line.retention_days = inbox.retention_days
WHERE inbox.workspace_id = $1 AND inbox.id = $2
  AND inbox.deleted_at IS NULL AND (inbox.expires_at IS NULL OR inbox.expires_at > now())
  AND line.workspace_id = $1 AND line.inbox_id = $2 AND line.message_id > $3
  AND (line.deleted_at IS NULL OR line.deleted_at > now())
  AND (inbox.message_ttl_s IS NULL
       OR line.message_id >= lowest_id_at(now() - make_interval(secs => inbox.message_ttl_s)))
ORDER BY line.message_id
LIMIT $4;

-- name: known_message_ids
-- Which of the Message-IDs $4 the inbox $2 of workspace $1 shows, in mail after $3.
SELECT DISTINCT line.header_message_id
FROM inbox
JOIN inbox_message AS line
  ON line.inbox_id = inbox.id AND line.retention_days = inbox.retention_days
WHERE inbox.workspace_id = $1 AND inbox.id = $2
  AND line.workspace_id = $1 AND line.inbox_id = $2 AND line.message_id > $3
  AND line.header_message_id = ANY($4::text[])
  AND (line.deleted_at IS NULL OR line.deleted_at > now());

-- name: set_end
-- The lines of message $2 of workspace $1 in its living inboxes end at $3; null: with their inboxes.
-- The inboxes, with their classes.
UPDATE inbox_message AS line
SET deleted_at = $3
FROM message
CROSS JOIN LATERAL unnest(message.inbox_ids) AS place (inbox_id)
JOIN inbox ON inbox.id = place.inbox_id
WHERE message.workspace_id = $1 AND message.id = $2 AND inbox.workspace_id = $1
  AND line.workspace_id = $1 AND line.inbox_id = place.inbox_id AND line.message_id = $2
  AND line.retention_days = inbox.retention_days
  AND (line.deleted_at IS NULL OR line.deleted_at > now())
  AND (inbox.message_ttl_s IS NULL
       OR line.message_id >= lowest_id_at(now() - make_interval(secs => inbox.message_ttl_s)))
  AND inbox.deleted_at IS NULL AND (inbox.expires_at IS NULL OR inbox.expires_at > now())
RETURNING line.inbox_id, line.retention_days;

-- name: ended_lines
-- Those lines of the messages $2 of workspace $1 that have ended and still have a state. $3 and $4 are
-- the lowest and highest of $2.
SELECT line.message_id, line.inbox_id, line.retention_days
FROM message
CROSS JOIN LATERAL unnest(message.inbox_ids) AS place (inbox_id)
JOIN inbox_message AS line
  ON line.inbox_id = place.inbox_id AND line.message_id = message.id
JOIN line_state AS state
  ON state.inbox_id = line.inbox_id AND state.message_id = line.message_id
     AND state.retention_days = line.retention_days AND state.workspace_id = line.workspace_id
WHERE message.workspace_id = $1 AND message.id = ANY($2::uuid[]) AND message.id BETWEEN $3 AND $4
  AND line.workspace_id = $1 AND line.message_id BETWEEN $3 AND $4
  AND line.deleted_at <= now();

-- name: due_ends
-- Up to $1 messages, in every workspace, that have ended somewhere where they still have a state.
SELECT DISTINCT line.workspace_id, line.message_id
FROM inbox_message AS line
JOIN line_state AS state
  ON state.inbox_id = line.inbox_id AND state.message_id = line.message_id
     AND state.retention_days = line.retention_days AND state.workspace_id = line.workspace_id
WHERE line.deleted_at IS NOT NULL AND line.deleted_at <= now()
LIMIT $1;
