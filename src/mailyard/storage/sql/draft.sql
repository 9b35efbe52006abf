-- What people write in a mailbox: drafts, templates, signatures. Class $3 is the inbox's.

-- name: get
-- The text $4 of the kinds $5 of inbox $2 of workspace $1.
SELECT text_id, kind, revision, content, conflict_of, send_at, leaving, problem, updated_at
FROM mailbox_text
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND text_id = $4
  AND kind = ANY($5::text[]);

-- name: list
-- The texts of the kinds $4 of inbox $2 of workspace $1, the newest first, up to $5.
SELECT text_id, kind, revision, content, conflict_of, send_at, leaving, problem, updated_at
FROM mailbox_text
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND kind = ANY($4::text[])
ORDER BY text_id DESC
LIMIT $5;

-- name: count
-- How many texts of the kind $4 inbox $2 of workspace $1 has.
SELECT count(*) FROM mailbox_text
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND kind = $4;

-- name: versions
-- Other versions of the draft $4 of inbox $2 of workspace $1.
SELECT text_id, kind, revision, content, conflict_of, send_at, leaving, problem, updated_at
FROM mailbox_text
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND conflict_of = $4
ORDER BY text_id;

-- name: add
-- A text of inbox $2 of workspace $1: id $4, kind $5, content $6, another version of $7, written at $8.
INSERT INTO mailbox_text (
    workspace_id, inbox_id, retention_days, text_id, kind, revision, content, conflict_of, updated_at
) VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8)
RETURNING text_id, kind, revision, content, conflict_of, send_at, leaving, problem, updated_at;

-- name: change
-- The text $4 of inbox $2 of workspace $1 says $5 now ($6), a revision later.
UPDATE mailbox_text
SET content = $5, revision = revision + 1, problem = '', updated_at = $6
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND text_id = $4
RETURNING text_id, kind, revision, content, conflict_of, send_at, leaving, problem, updated_at;

-- name: set_leaving
-- The draft $4 of inbox $2 of workspace $1 goes at $5 (null: it does not), is on its way ($6), or came
-- back because of $7; a revision later.
UPDATE mailbox_text
SET send_at = $5, leaving = $6, problem = $7, revision = revision + 1
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND text_id = $4
RETURNING text_id, kind, revision, content, conflict_of, send_at, leaving, problem, updated_at;

-- name: set_alone
-- Other versions of the draft $4 of inbox $2 of workspace $1 are drafts of their own.
UPDATE mailbox_text SET conflict_of = NULL
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND conflict_of = $4;

-- name: delete
-- The text $4 of inbox $2 of workspace $1 is gone.
DELETE FROM mailbox_text
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3 AND text_id = $4;

-- name: store_sent
-- A mail that was sent from inbox $2 of workspace $1: its message $4, bytes $5 ($14 of them, or under the key $15 in the blob store), and its line: the mailbox's
-- address $6 and name $7, to whom $8, subject $9, preview $10, when $11, Message-ID $12, files $13.
WITH stored AS (
    INSERT INTO message (
        id, workspace_id, retention_days, reverse_path, recipients, inbox_ids, helo, peer, size_bytes,
        raw, blob
    ) VALUES ($4, $1, $3, $6, ARRAY[$6::text], ARRAY[$2::uuid], '', '', $14::integer, $5, $15)
)
INSERT INTO inbox_message (
    inbox_id, message_id, workspace_id, retention_days, message_retention_days, recipient,
    from_address, from_name, subject, preview, sent_at, header_message_id, size_bytes, attachments
) VALUES ($2, $4, $1, $3, $3, $8, $6, $7, $9, $10, $11, $12, $14::integer, $13);
