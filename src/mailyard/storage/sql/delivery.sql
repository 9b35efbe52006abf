-- Reading what happened to mail. A list goes through one index, newest first, with ids in
-- [$low, $high), so that only the partitions of that time are opened.

-- name: plan_for_values
-- Plans this transaction's lists for their values: how rare a state or type is decides the index,
-- and a plan for any value would walk the primary key past all that is not in a rare state.
SET LOCAL plan_cache_mode = force_custom_plan;

-- name: get_delivery
-- One delivery.
SELECT id, workspace_id, email_id, campaign_id, contact_id, recipient, type, state::text, attempts,
       reply_code, reply, reason, transport, queued_at, handed_off_at, updated_at, next_attempt_at, expires_at
FROM delivery WHERE workspace_id = $1 AND id = $2;

-- name: get_delivery_events
-- What the row has forgotten, in order.
SELECT seq, at, state::text, attempt, reply_code, detail, transport, kind, reason, status, source,
       message_id
FROM delivery_event WHERE workspace_id = $1 AND delivery_id = $2 ORDER BY seq;

-- name: list_by_recipient
-- The mail to one address: $4 its key, $5 the address in lower case; $7 and $8 narrow.
SELECT id, workspace_id, email_id, campaign_id, contact_id, recipient, type, state::text, attempts,
       reply_code, reply, reason, transport, queued_at, handed_off_at, updated_at, next_attempt_at, expires_at
FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND recipient_key = $4 AND lower(recipient) = $5
  AND ($7::text IS NULL OR type = $7) AND ($8::delivery_state IS NULL OR state = $8)
ORDER BY id DESC LIMIT $6;

-- name: list_by_type
-- The mail of one type.
SELECT id, workspace_id, email_id, campaign_id, contact_id, recipient, type, state::text, attempts,
       reply_code, reply, reason, transport, queued_at, handed_off_at, updated_at, next_attempt_at, expires_at
FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND type = $4
ORDER BY id DESC LIMIT $5;

-- name: list_by_state
-- The mail in one state.
SELECT id, workspace_id, email_id, campaign_id, contact_id, recipient, type, state::text, attempts,
       reply_code, reply, reason, transport, queued_at, handed_off_at, updated_at, next_attempt_at, expires_at
FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND state = $4::delivery_state
ORDER BY id DESC LIMIT $5;

-- name: list_by_state_and_type
-- The mail of one type in one state.
SELECT id, workspace_id, email_id, campaign_id, contact_id, recipient, type, state::text, attempts,
       reply_code, reply, reason, transport, queued_at, handed_off_at, updated_at, next_attempt_at, expires_at
FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND state = $4::delivery_state AND type = $5
ORDER BY id DESC LIMIT $6;

-- name: list_by_email
-- The recipients of one accepted email, in the order of the request.
SELECT id, workspace_id, email_id, campaign_id, contact_id, recipient, type, state::text, attempts,
       reply_code, reply, reason, transport, queued_at, handed_off_at, updated_at, next_attempt_at, expires_at
FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND email_id = $4
ORDER BY id DESC LIMIT $5;

-- name: list_by_campaign
-- A campaign's page: its ids lie in the millisecond of its first start. $6 narrows.
SELECT id, workspace_id, email_id, campaign_id, contact_id, recipient, type, state::text, attempts,
       reply_code, reply, reason, transport, queued_at, handed_off_at, updated_at, next_attempt_at, expires_at
FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND campaign_id = $4
ORDER BY id DESC LIMIT $5;

-- name: list_by_campaign_and_state
-- A campaign's recipients in one state.
SELECT id, workspace_id, email_id, campaign_id, contact_id, recipient, type, state::text, attempts,
       reply_code, reply, reason, transport, queued_at, handed_off_at, updated_at, next_attempt_at, expires_at
FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND campaign_id = $4 AND state = $6::delivery_state
ORDER BY id DESC LIMIT $5;

-- name: list_all
-- All mail of a workspace in a time range.
SELECT id, workspace_id, email_id, campaign_id, contact_id, recipient, type, state::text, attempts,
       reply_code, reply, reason, transport, queued_at, handed_off_at, updated_at, next_attempt_at, expires_at
FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id < $3
ORDER BY id DESC LIMIT $4;
