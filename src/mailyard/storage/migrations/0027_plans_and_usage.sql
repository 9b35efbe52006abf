-- Plans are a file of the operator's (access/plan.py); a workspace has the name of one. Without a
-- name it has no limits.
ALTER TABLE workspace
    ADD COLUMN plan text NOT NULL DEFAULT '',
    ADD COLUMN signed_up_at timestamptz;           -- who made it by signing up

-- What a workspace has used, by UTC day: folded from its counters, never written by who uses.
CREATE TABLE usage_day (
    day           date NOT NULL,
    workspace_id  uuid NOT NULL,
    kind          text NOT NULL,                   -- messages, sends
    amount        bigint NOT NULL,
    PRIMARY KEY (day, workspace_id, kind)
);
INSERT INTO usage_day (day, workspace_id, kind, amount)
SELECT (minute AT TIME ZONE 'UTC')::date, workspace_id,
       CASE name WHEN 'received' THEN 'messages' ELSE 'sends' END, sum(amount)
FROM counter
WHERE subject = workspace_id AND name IN ('received', 'delivery.accepted')
GROUP BY 1, 2, 3;

-- What was told to a workspace's owners, once a day, kind and level.
CREATE TABLE usage_notice (
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    day           date NOT NULL,
    kind          text NOT NULL,
    level         text NOT NULL CHECK (level IN ('soft', 'hard')),
    PRIMARY KEY (workspace_id, day, kind, level)
);

-- Sends of a plan are counted by UTC day, whatever clock the workspace says it lives by.
ALTER TABLE sending_use
    ADD COLUMN plan_day date NOT NULL DEFAULT 'epoch',
    ADD COLUMN plan_used bigint NOT NULL DEFAULT 0;
