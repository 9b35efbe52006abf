-- What received mail means.

-- name: kept
-- What the rules of version $3 found in the message $2 of workspace $1.
SELECT findings FROM message_meaning
WHERE workspace_id = $1 AND message_id = $2 AND rules_version = $3;

-- name: raw
-- The bytes of the message $2 of workspace $1.
SELECT raw, blob FROM message WHERE workspace_id = $1 AND id = $2;

-- name: keep
-- Keeps the findings $4 of rules $3 beside the message $2 of workspace $1, in the class where it lies;
-- nothing when it is gone. Holds the message until the commit, so that it cannot go meanwhile.
INSERT INTO message_meaning (message_id, retention_days, workspace_id, rules_version, findings)
SELECT id, retention_days, workspace_id, $3::smallint, $4
FROM message WHERE workspace_id = $1 AND id = $2
FOR KEY SHARE
ON CONFLICT (message_id, retention_days) DO UPDATE
SET rules_version = excluded.rules_version, findings = excluded.findings;
