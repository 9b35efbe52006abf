-- The mailbox of an inbox: its lines by folder, label or thread, their states, its events. Class $3 is
-- the inbox's, and everything of one inbox lies in one partition of each table.

-- part: shown
-- A line as a mailbox shows it.
state.inbox_id, state.message_id, line.recipient, line.from_address, line.from_name, line.subject,
line.preview, line.sent_at, line.header_message_id, line.size_bytes, line.attachments,
line.message_retention_days, line.deleted_at AS expires_at, state.thread_id, state.folder,
state.back_to, state.labels, state.seen, state.starred, state.muted, state.snoozed_until

-- part: joined
-- States of inbox $2 with their lines, one by one (OFFSET keeps the planner from joining the tables).
FROM line_state AS state
CROSS JOIN LATERAL (
    SELECT recipient, from_address, from_name, subject, preview, sent_at, header_message_id,
           size_bytes, attachments, message_retention_days, deleted_at
    FROM inbox_message
    WHERE inbox_message.inbox_id = state.inbox_id AND inbox_message.message_id = state.message_id
      AND inbox_message.retention_days = state.retention_days
      AND inbox_message.workspace_id = state.workspace_id
      AND (inbox_message.deleted_at IS NULL OR inbox_message.deleted_at > now())
    OFFSET 0
) AS line
WHERE state.workspace_id = $1 AND state.inbox_id = $2 AND state.retention_days = $3

-- name: list_folder
-- The mails of folder $4 of inbox $2 of workspace $1 with ids in [$5, $6), newest first, up to $7; with
-- $8 only those that nobody has read.
SELECT
-- use: shown
-- use: joined
  AND state.folder = $4 AND state.message_id >= $5 AND state.message_id < $6
  AND (NOT $8::boolean OR NOT state.seen)
ORDER BY state.message_id DESC
LIMIT $7;

-- name: list_conversations
-- The newest mail in folder $4 of each thread of inbox $2 of workspace $1, with ids in [$5, $6), newest
-- first, up to $7; with $8 only of threads with a mail there that nobody has read. `mails` and `unseen`
-- count the whole thread.
SELECT
-- use: shown
, (
    SELECT count(*) FROM line_state AS other
    WHERE other.workspace_id = $1 AND other.inbox_id = $2 AND other.retention_days = $3
      AND other.thread_id = state.thread_id AND other.thread_id <> other.message_id
) + (
    SELECT count(*) FROM line_state AS first
    WHERE first.workspace_id = $1 AND first.inbox_id = $2 AND first.retention_days = $3
      AND first.message_id = state.thread_id AND first.thread_id = first.message_id
) AS mails
-- use: joined
  AND state.folder = $4 AND state.message_id >= $5 AND state.message_id < $6
  AND (NOT $8::boolean OR NOT state.seen)
  AND NOT EXISTS (
      SELECT FROM line_state AS newer
      WHERE newer.workspace_id = $1 AND newer.inbox_id = $2 AND newer.retention_days = $3
        AND newer.thread_id = state.thread_id AND newer.thread_id <> newer.message_id
        AND newer.message_id > state.message_id AND newer.folder = $4
        AND (NOT $8::boolean OR NOT newer.seen)
  )
  AND (
      state.thread_id <= state.message_id
      OR NOT EXISTS (
          SELECT FROM line_state AS root
          WHERE root.workspace_id = $1 AND root.inbox_id = $2 AND root.retention_days = $3
            AND root.message_id = state.thread_id AND root.thread_id = root.message_id
            AND root.folder = $4 AND (NOT $8::boolean OR NOT root.seen)
      )
  )
ORDER BY state.message_id DESC
LIMIT $7;

-- name: list_starred
-- The mails of inbox $2 of workspace $1 with a star and an id in [$4, $5), newest first, up to $6.
SELECT
-- use: shown
-- use: joined
  AND state.starred AND state.folder <> 'trash' AND state.message_id >= $4 AND state.message_id < $5
ORDER BY state.message_id DESC
LIMIT $6;

-- name: list_labelled
-- The mails of inbox $2 of workspace $1 with the label $7 and an id in [$4, $5), newest first, up to $6.
SELECT
-- use: shown
-- use: joined
  AND state.labels <> '{}' AND $7::text = ANY(state.labels) AND state.folder <> 'trash'
  AND state.message_id >= $4 AND state.message_id < $5
ORDER BY state.message_id DESC
LIMIT $6;

-- name: find_thread
-- The thread of the message $4 of inbox $2 of workspace $1: threads are named by one of their messages,
-- also by one whose thread has become part of another.
SELECT thread_id
FROM line_state
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND message_id = $4;

-- name: list_thread
-- The mails of the thread $4 of inbox $2 of workspace $1 with ids from $6 on, oldest first, the newest
-- $5 of them.
SELECT * FROM (
    SELECT
-- use: shown
-- use: joined
      AND (state.message_id = $4 AND state.thread_id = state.message_id
           OR state.thread_id = $4 AND state.thread_id <> state.message_id)
      AND state.message_id >= $6
    ORDER BY state.message_id DESC
    LIMIT $5
) AS newest
ORDER BY message_id;

-- name: states_of
-- How the messages $4 of inbox $2 of workspace $1 stand.
SELECT message_id, thread_id, folder, back_to, labels, seen, starred, muted, snoozed_until
FROM line_state
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND message_id = ANY($4::uuid[]);

-- name: states_of_threads
-- How the mails of the threads $4 of inbox $2 of workspace $1 stand, up to $5 of them.
SELECT message_id, thread_id, folder, back_to, labels, seen, starred, muted, snoozed_until
FROM line_state
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3
  AND (message_id = ANY($4::uuid[]) AND thread_id = message_id
       OR thread_id = ANY($4::uuid[]) AND thread_id <> message_id)
LIMIT $5;

-- name: change_states
-- The messages $4 of inbox $2 of workspace $1 stand so: folders $5, the folders they go back to $6,
-- labels $7 (JSON arrays), seen $8, starred $9, muted $10, snoozed until $11.
UPDATE line_state AS state
SET folder = changed.folder, back_to = changed.back_to,
    labels = ARRAY(SELECT jsonb_array_elements_text(changed.labels::jsonb)), seen = changed.seen,
    starred = changed.starred, muted = changed.muted, snoozed_until = changed.snoozed_until
FROM unnest(
    $4::uuid[], $5::text[], $6::text[], $7::text[], $8::boolean[], $9::boolean[], $10::boolean[],
    $11::timestamptz[]
) AS changed (message_id, folder, back_to, labels, seen, starred, muted, snoozed_until)
WHERE state.workspace_id = $1 AND state.inbox_id = $2 AND state.retention_days = $3
  AND state.message_id = changed.message_id;

-- name: mute_ties
-- What is tied to the threads $4 of inbox $2 of workspace $1 is muted, or not ($5).
UPDATE thread_key SET muted = $5
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND thread_id = ANY($4::uuid[]);

-- name: forget_states
-- The messages $4 of inbox $2 of workspace $1 have no state any more. Their ties stay with their
-- threads, so that these hold together: a number each, which says nothing of the mail.
WITH gone AS (
    DELETE FROM line_state
    WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3
      AND message_id = ANY($4::uuid[])
    RETURNING message_id, thread_id, own_key, muted
), kept AS (
    INSERT INTO thread_key (workspace_id, inbox_id, retention_days, key, thread_id, muted)
    SELECT DISTINCT ON (own_key) $1, $2, $3, own_key, thread_id, muted
    FROM gone
    WHERE own_key IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT message_id, thread_id FROM gone;

-- name: overview
-- The mailbox of inbox $2 of workspace $1: its last number, folders and labels of its own.
SELECT seq, folders, labels
FROM mailbox
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3;

-- name: count_unseen
-- How many mails that nobody has read lie in each of the folders $4 of inbox $2 of workspace $1, with
-- ids from $6 on; $5 is as far as is counted.
SELECT folder.name, (
    SELECT count(*) FROM (
        SELECT FROM line_state AS state
        WHERE state.workspace_id = $1 AND state.inbox_id = $2 AND state.retention_days = $3
          AND state.folder = folder.name AND NOT state.seen AND state.message_id >= $6
        LIMIT $5
    ) AS counted
) AS unseen
FROM unnest($4::text[]) AS folder (name);

-- name: set_names
-- The mailbox of inbox $2 of workspace $1 has the folders $4 and the labels $5 of its own.
UPDATE mailbox SET folders = $4::text[], labels = $5::text[]
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3;

-- name: any_in_folder
-- Whether folder $4 of inbox $2 of workspace $1 has mail, or a mail that waits to go back there.
SELECT EXISTS (
    SELECT FROM line_state
    WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND folder = $4
);

-- name: events_after
-- The events of inbox $2 of workspace $1 behind number $4, up to $5.
SELECT seq, at, kind, item
FROM mailbox_event
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND seq > $4
ORDER BY seq
LIMIT $5;

-- name: event
-- The event number $4 of inbox $2 of workspace $1.
SELECT seq, at, kind, item
FROM mailbox_event
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND seq = $4;

-- name: people_seen
-- Who has written to inbox $2 of workspace $1, and to whom was written from it, in its newest $4 mails:
-- address, name, how often, the newest. Not the mailbox itself ($5); holding the text $6, any case; in
-- mails with ids from $8 on.
SELECT lower(address) AS address, max(name) AS name, count(*) AS mails, max(message_id::text)::uuid AS newest
FROM (
    SELECT CASE WHEN state.folder = 'sent' THEN line.recipient ELSE line.from_address END AS address,
           CASE WHEN state.folder = 'sent' THEN '' ELSE line.from_name END AS name,
           line.message_id
    FROM inbox_message AS line
    LEFT JOIN line_state AS state
      ON state.inbox_id = line.inbox_id AND state.message_id = line.message_id
         AND state.retention_days = line.retention_days AND state.workspace_id = line.workspace_id
    WHERE line.workspace_id = $1 AND line.inbox_id = $2 AND line.retention_days = $3
      AND line.message_id >= $8
      AND (line.deleted_at IS NULL OR line.deleted_at > now())
    ORDER BY line.message_id DESC
    LIMIT $4
) AS newest
WHERE address <> '' AND lower(address) <> $5
  AND ($6::text = '' OR strpos(lower(address || ' ' || name), lower($6)) > 0)
GROUP BY lower(address)
ORDER BY max(message_id::text) DESC
LIMIT $7;
