-- name: fold_counters
-- Takes up to $1 of the oldest deltas and adds them to their counters, in one statement: a delta is
-- in exactly one of the two tables at any instant. Rows another folder holds are left to it.
WITH taken AS (
    DELETE FROM counter_delta WHERE id IN (
        SELECT id FROM counter_delta ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
    )
    RETURNING workspace_id, name, subject, minute, amount
), sums AS (
    SELECT workspace_id, name, subject, minute, sum(amount)::bigint AS amount, count(*) AS deltas
    FROM taken GROUP BY workspace_id, name, subject, minute
), folded AS (
    INSERT INTO counter (workspace_id, name, subject, minute, amount)
    SELECT workspace_id, name, subject, minute, amount FROM sums
    ORDER BY workspace_id, name, subject, minute
    ON CONFLICT (workspace_id, name, subject, minute)
        DO UPDATE SET amount = counter.amount + excluded.amount
)
SELECT coalesce(sum(deltas), 0)::bigint FROM sums;

-- name: drop_old_minutes
-- Forgets up to $2 minutes that are older than $1; totals of campaigns stay with their deliveries.
DELETE FROM counter WHERE ctid IN (SELECT ctid FROM counter WHERE minute < $1 LIMIT $2);
