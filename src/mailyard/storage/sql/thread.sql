-- What ingest writes of mailboxes: their numbers, threads, states and events, a batch a statement.
-- The inner SELECT around an array hides its length from the planner (see receiving.sql).

-- name: hold
-- Gives the mailboxes of the inboxes $1 (sorted; classes $2, workspace_id $3) $4 more numbers each and
-- holds their rows until the commit. The last number of each, and whether it is new.
INSERT INTO mailbox AS held (inbox_id, retention_days, workspace_id, seq)
SELECT * FROM unnest((SELECT $1::uuid[]), $2::smallint[], $3::uuid[], $4::bigint[])
ON CONFLICT (inbox_id, retention_days) DO UPDATE SET seq = held.seq + excluded.seq
RETURNING inbox_id, seq;

-- name: find_ties
-- What lies behind ties: inboxes $1 (classes $2), ties $3, and whether each is looked for among lines
-- too: by Message-ID (1), by subject (2), or not (0). By the ids of inboxes that the caller holds.
SELECT asked.inbox_id, asked.tie, behind.thread_id, behind.muted, behind.written
FROM unnest((SELECT $1::uuid[]), $2::smallint[], $3::bigint[], $4::smallint[])
    AS asked (inbox_id, retention_days, tie, among)
CROSS JOIN LATERAL (
    SELECT thread_id, muted, true AS written
    FROM thread_key
    WHERE thread_key.inbox_id = asked.inbox_id AND thread_key.retention_days = asked.retention_days
      AND thread_key.key = asked.tie
    UNION ALL
    SELECT thread_id, muted, false
    FROM line_state
    WHERE asked.among = 1
      AND line_state.inbox_id = asked.inbox_id AND line_state.retention_days = asked.retention_days
      AND line_state.own_key = asked.tie
    UNION ALL
    SELECT thread_id, muted, false
    FROM line_state
    WHERE asked.among = 2
      AND line_state.inbox_id = asked.inbox_id AND line_state.retention_days = asked.retention_days
      AND line_state.subject_key = asked.tie
) AS behind;

-- name: write_ties
-- Ties that no line has: inboxes $1, classes $2, workspace_id $3, ties $4, their threads $5, muted $6.
INSERT INTO thread_key (inbox_id, retention_days, workspace_id, key, thread_id, muted)
SELECT * FROM unnest(
    (SELECT $1::uuid[]), $2::smallint[], $3::uuid[], $4::bigint[], $5::uuid[], $6::boolean[]
)
ON CONFLICT DO NOTHING;

-- name: size_threads
-- How many mails, beside their first, the threads $4 of inbox $2 (class $3) of workspace $1 have.
SELECT thread.thread_id, (
    SELECT count(*)
    FROM line_state
    WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3
      AND line_state.thread_id = thread.thread_id AND thread_id <> message_id
) AS mails
FROM unnest($4::uuid[]) AS thread (thread_id);

-- name: join_threads
-- The threads $4 of inbox $2 (class $3) of workspace $1 are the thread $5, muted or not ($6).
WITH named AS (
    UPDATE thread_key SET thread_id = $5, muted = $6
    WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3
      AND thread_id = ANY($4::uuid[])
), first AS (
    UPDATE line_state SET thread_id = $5, muted = $6
    WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3
      AND message_id = ANY($4::uuid[]) AND thread_id = message_id
)
UPDATE line_state SET thread_id = $5, muted = $6
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3
  AND thread_id <> message_id AND thread_id = ANY($4::uuid[]);

-- name: advance
-- The next number of the mailbox of inbox $2 (class $3) of workspace $1, whose row is held until the
-- commit.
INSERT INTO mailbox AS held (workspace_id, inbox_id, retention_days, seq)
VALUES ($1, $2, $3, $4)
ON CONFLICT (inbox_id, retention_days) DO UPDATE SET seq = held.seq + excluded.seq
RETURNING seq;

-- name: tell
-- An event of the mailbox of inbox $2 (class $3) of workspace $1: number $4, kind $5, item $6.
INSERT INTO mailbox_event (workspace_id, inbox_id, retention_days, seq, kind, item)
VALUES ($1, $2, $3, $4, $5, $6);
