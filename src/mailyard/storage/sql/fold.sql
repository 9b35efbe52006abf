-- name: fold_counters
-- Takes up to $1 of the oldest deltas and adds them to their counters, in one statement: a delta is
-- in exactly one of the two tables at any instant. What plans meter is added up by UTC day too. Rows
-- another folder holds are left to it.
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
), metered AS (
    INSERT INTO usage_day (day, workspace_id, kind, amount)
    SELECT (minute AT TIME ZONE 'UTC')::date, workspace_id,
           CASE name WHEN 'received' THEN 'messages' ELSE 'sends' END, sum(amount)
    FROM sums
    WHERE subject = workspace_id AND name IN ('received', 'delivery.accepted')
    GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    ON CONFLICT (day, workspace_id, kind)
        DO UPDATE SET amount = usage_day.amount + excluded.amount
)
SELECT coalesce(sum(deltas), 0)::bigint FROM sums;

-- name: drop_old_minutes
-- Forgets up to $2 minutes that are older than $1; totals of campaigns stay with their deliveries.
DELETE FROM counter WHERE ctid IN (SELECT ctid FROM counter WHERE minute < $1 LIMIT $2);
