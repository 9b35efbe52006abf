-- Analysis of received mail: policy, models, budget, answers.

-- name: get_policy
-- When workspace $1 asks, and what it may use a day.
SELECT on_arrival, aspects, fields, day_tokens, day_micros
FROM analysis_policy WHERE workspace_id = $1;

-- name: set_policy
-- On arrival $2, aspects $3, fields $4, tokens a day $5, millionths of money a day $6.
INSERT INTO analysis_policy (workspace_id, on_arrival, aspects, fields, day_tokens, day_micros)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (workspace_id) DO UPDATE
SET on_arrival = excluded.on_arrival, aspects = excluded.aspects, fields = excluded.fields,
    day_tokens = excluded.day_tokens, day_micros = excluded.day_micros;

-- name: wanting
-- Which of the workspaces $1 ask on arrival, or have inboxes that say otherwise.
SELECT workspace_id, on_arrival, inboxes, aspects, fields
FROM analysis_policy WHERE workspace_id = ANY($1::uuid[]) AND (on_arrival OR inboxes);

-- name: inboxes_that_say
-- What the inboxes $2 of the workspaces $1 say for themselves; $3 and $4 are the lowest and highest.
SELECT id, analysis FROM inbox
WHERE workspace_id = ANY($1::uuid[]) AND id = ANY($2::uuid[]) AND id BETWEEN $3 AND $4
  AND analysis IS NOT NULL;

-- name: get_inbox
-- What the living inbox $2 of workspace $1 says for itself.
SELECT analysis FROM inbox
WHERE workspace_id = $1 AND id = $2
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: set_inbox
-- The living inbox $2 of workspace $1 says $3 for itself.
UPDATE inbox SET analysis = $3
WHERE workspace_id = $1 AND id = $2
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
RETURNING id;

-- name: note_inboxes
-- Workspace $1 has an inbox that says for itself; without a policy it gets one with the aspects $2.
INSERT INTO analysis_policy (workspace_id, inboxes, aspects) VALUES ($1, true, $2)
ON CONFLICT (workspace_id) DO UPDATE SET inboxes = true;

-- name: hold_models
-- Until the end of the transaction nobody else changes the models of workspace $1.
SELECT pg_advisory_xact_lock(hashtextextended('analysis models ' || $1::uuid::text, 0));

-- name: list_models
-- The models of workspace $1 in the order in which they are asked.
SELECT id, name, kind, place, settings, sealed_key, enabled, resting_until, why
FROM analysis_model WHERE workspace_id = $1 ORDER BY place, id;

-- name: get_model
-- The model $2 of workspace $1.
SELECT id, name, kind, place, settings, sealed_key, enabled, resting_until, why
FROM analysis_model WHERE workspace_id = $1 AND id = $2;

-- name: add_model
-- The model $2 of workspace $1: name $3, kind $4, place $5, settings $6, sealed key $7.
INSERT INTO analysis_model (workspace_id, id, name, kind, place, settings, sealed_key)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: change_model
-- Place $3, settings $4, sealed key $5, enabled $6; its breaker closes.
UPDATE analysis_model
SET place = $3, settings = $4, sealed_key = $5, enabled = $6, resting_until = NULL, why = ''
WHERE workspace_id = $1 AND id = $2;

-- name: rest_model
-- The breaker of model $2 of workspace $1 changed: open until $3, or closed; why $4.
UPDATE analysis_model SET resting_until = $3, why = $4 WHERE workspace_id = $1 AND id = $2;

-- name: remove_model
-- Takes the model $2 of workspace $1 away.
DELETE FROM analysis_model WHERE workspace_id = $1 AND id = $2;

-- name: any_sealed
-- Whether there is a key at all, in any workspace.
SELECT EXISTS (SELECT FROM analysis_model WHERE sealed_key IS NOT NULL);

-- name: sealed_otherwise
-- Up to $2 keys, of all workspaces, that another master key than $1 has sealed.
SELECT id, sealed_key FROM analysis_model
WHERE sealed_key IS NOT NULL AND substring(sealed_key FROM 2 FOR 4) <> $1
LIMIT $2;

-- name: seal_anew
-- In place of the sealed keys $2 of the rows $1 their new ones $3, where nobody was faster.
UPDATE analysis_model SET sealed_key = anew.after
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS anew (id, before, after)
WHERE analysis_model.id = anew.id AND analysis_model.sealed_key = anew.before;

-- name: hold
-- Counts what a call may use at most, $3 tokens and $4 micros, on the day $2 of workspace $1, if the
-- day's limits $5 and $6 (null: none) leave room for it. No row: they do not.
INSERT INTO analysis_spent (workspace_id, day, tokens, micros, calls)
SELECT $1, $2, $3::bigint, $4::bigint, 1
WHERE $3::bigint <= coalesce($5::bigint, $3::bigint) AND $4::bigint <= coalesce($6::bigint, $4::bigint)
ON CONFLICT (workspace_id, day) DO UPDATE
SET tokens = analysis_spent.tokens + excluded.tokens,
    micros = analysis_spent.micros + excluded.micros,
    calls = analysis_spent.calls + 1
WHERE ($5::bigint IS NULL OR analysis_spent.tokens + excluded.tokens <= $5::bigint)
  AND ($6::bigint IS NULL OR analysis_spent.micros + excluded.micros <= $6::bigint)
RETURNING true;

-- name: settle
-- Corrects the day $2 of workspace $1 by $3 tokens and $4 micros; $5 calls failed.
UPDATE analysis_spent
SET tokens = greatest(0, tokens + $3), micros = greatest(0, micros + $4), failures = failures + $5
WHERE workspace_id = $1 AND day = $2;

-- name: count_kept
-- One more answer that was there already.
INSERT INTO analysis_spent (workspace_id, day, tokens, micros, kept) VALUES ($1, $2, 0, 0, 1)
ON CONFLICT (workspace_id, day) DO UPDATE SET kept = analysis_spent.kept + 1;

-- name: list_spent
-- The last $2 days of workspace $1, newest first.
SELECT day, tokens, micros, calls, failures, kept
FROM analysis_spent WHERE workspace_id = $1 ORDER BY day DESC LIMIT $2;

-- name: get_results
-- Those of the answers $2 of workspace $1 that are there.
SELECT key, sealed FROM analysis_result WHERE workspace_id = $1 AND key = ANY($2::bytea[]);

-- name: keep_result
-- Keeps an answer for ever; whoever was faster keeps his.
INSERT INTO analysis_result (workspace_id, key, sealed) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING;

-- name: load
-- The bytes and the inboxes of the message $2 of workspace $1.
SELECT raw, blob, inbox_ids FROM message WHERE workspace_id = $1 AND id = $2;

-- name: ask
-- Notes that the task $3 is asked of the message $2 of workspace $1, as $4 says; it begins anew when
-- it was done.
INSERT INTO message_analysis (message_id, task, retention_days, workspace_id, ask, state, outcome)
SELECT id, $3, retention_days, workspace_id, $4, 'queued', ''
FROM message WHERE workspace_id = $1 AND id = $2
FOR KEY SHARE
ON CONFLICT (message_id, task, retention_days) DO UPDATE
SET state = 'queued', asked_at = now(), done_at = NULL
RETURNING task, ask, state, outcome, asked_at, done_at;

-- name: answer
-- Writes the outcome $5 of the task $3 ($4) of the message $2 of workspace $1, which comes from the kept
-- answer $6 (null: from none).
INSERT INTO message_analysis
    (message_id, task, retention_days, workspace_id, ask, state, outcome, result_key, done_at)
SELECT id, $3, retention_days, workspace_id, $4, 'done', $5, $6, now()
FROM message WHERE workspace_id = $1 AND id = $2
FOR KEY SHARE
ON CONFLICT (message_id, task, retention_days) DO UPDATE
SET state = 'done', outcome = excluded.outcome, result_key = excluded.result_key, done_at = now()
RETURNING task, ask, state, outcome, asked_at, done_at;

-- name: list_analyses
-- What was asked of the message $2 of workspace $1, newest first.
SELECT task, ask, state, outcome, asked_at, done_at
FROM message_analysis WHERE workspace_id = $1 AND message_id = $2
ORDER BY asked_at DESC LIMIT 50;

-- name: done_of
-- Those of the messages $2 of workspace $1 whose task $3 is done. $4 and $5: lowest and highest of $2.
SELECT message_id FROM message_analysis
WHERE workspace_id = $1 AND message_id = ANY($2::uuid[]) AND message_id BETWEEN $4 AND $5
  AND task = $3 AND state = 'done';
