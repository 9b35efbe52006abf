-- What accepting and delivering transactional mail writes. Every statement takes many rows.

-- name: claim_idempotency_keys
-- Writes the keys that are new (or past their 24 hours), without their answers; returns those.
INSERT INTO idempotency_key (workspace_id, key, body_hash, status, answer, expires_at)
SELECT workspace_id, key, body_hash, $4, '', $5
FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS claim (workspace_id, key, body_hash)
ON CONFLICT (workspace_id, key) DO UPDATE
    SET body_hash = excluded.body_hash, status = excluded.status, answer = excluded.answer,
        expires_at = excluded.expires_at
    WHERE idempotency_key.expires_at < now()
RETURNING workspace_id, key;

-- name: answer_idempotency_keys
-- Gives the keys claimed in this transaction their answers.
UPDATE idempotency_key i SET answer = given.answer
FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS given (workspace_id, key, answer)
WHERE i.workspace_id = given.workspace_id AND i.key = given.key;

-- name: read_idempotency_keys
-- The answers given before under these keys.
SELECT i.workspace_id, i.key, i.body_hash, i.answer
FROM unnest($1::uuid[], $2::text[]) AS asked (workspace_id, key)
JOIN idempotency_key i ON i.workspace_id = asked.workspace_id AND i.key = asked.key;

-- name: zones_of
-- The time zones of the contacts with the addresses $2; of who has none, nothing.
SELECT address, attributes ->> 'timezone' AS zone FROM contact
WHERE workspace_id = $1 AND address = ANY ($2::text[]) AND attributes ? 'timezone';

-- name: give_back_idempotency_keys
-- The mail of these keys, claimed in this transaction, is not taken: they may come again.
DELETE FROM idempotency_key i
USING unnest($1::uuid[], $2::text[]) AS given (workspace_id, key)
WHERE i.workspace_id = given.workspace_id AND i.key = given.key;

-- name: insert_accepted
-- A group of accepted requests: their content ($1 to $8) and actor ($9, $10), one delivery a
-- recipient ($11 to $19; $15 is the normalised address), suppressed or queued, and the counters. A
-- column without any value may come as an empty array. Returns the deliveries that are suppressed.
-- The SELECT around an array hides its length from the planner: it would make a new plan for every
-- small group, which costs as much as the group.
WITH recipient AS MATERIALIZED (
    SELECT new.*,
           CASE WHEN EXISTS (SELECT FROM suppression s
                             WHERE s.workspace_id = new.workspace_id
                               AND s.address = new.normalised AND s.stream = 'all')
                THEN 'suppressed' ELSE 'queued' END AS state
    FROM unnest((SELECT $11::uuid[]), $12::uuid[], $13::uuid[], $14::text[], $15::text[],
                $16::bigint[], $17::text[], $18::timestamptz[], $19::timestamptz[])
        AS new (id, workspace_id, email_id, recipient, normalised, recipient_key, type,
                next_attempt_at, expires_at)
), mailed AS (
    INSERT INTO email (id, workspace_id, type, sender, subject, content, send_at, expires_at,
                       actor_kind, actor)
    SELECT * FROM unnest((SELECT $1::uuid[]), $2::uuid[], $3::text[], $4::text[], $5::text[],
                         $6::bytea[], $7::timestamptz[], $8::timestamptz[], $9::text[], $10::text[])
), addressed AS (
    INSERT INTO delivery (id, workspace_id, email_id, recipient, recipient_key, type, state,
                          next_attempt_at, expires_at)
    SELECT id, workspace_id, email_id, recipient, recipient_key, type, state::delivery_state,
           next_attempt_at, expires_at
    FROM recipient
), counted AS (
    INSERT INTO counter_delta (workspace_id, name, subject, minute, amount)
    SELECT workspace_id, 'delivery.' || state, workspace_id, date_trunc('minute', now()), count(*)
    FROM recipient GROUP BY workspace_id, state
)
SELECT id FROM recipient WHERE state = 'suppressed';

-- name: insert_counter_deltas
-- Adds to counters: workspace, name, subject, amount; the minute is now.
INSERT INTO counter_delta (workspace_id, name, subject, minute, amount)
SELECT workspace_id, name, subject, date_trunc('minute', now()), amount
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[])
    AS delta (workspace_id, name, subject, amount);

-- name: get_email
-- One accepted request of a workspace.
SELECT id, workspace_id, type, sender, subject, content, send_at, expires_at
FROM email WHERE id = $2 AND workspace_id = $1;

-- name: list_emails
-- Accepted requests of a workspace, newest first, with ids in [$2, $3).
SELECT id, workspace_id, type, sender, subject, send_at, expires_at
FROM email WHERE workspace_id = $1 AND id >= $2 AND id < $3
ORDER BY id DESC LIMIT $4;

-- name: cancel_email
-- Withdraws what of an email was not handed over yet. The ids lie in [$3, $4).
UPDATE delivery SET state = 'cancelled', updated_at = now(), next_attempt_at = NULL
WHERE workspace_id = $1 AND email_id = $2 AND id >= $3 AND id < $4
  AND state IN ('queued', 'deferred')
RETURNING id, recipient;

-- name: cancel_delivery
-- Withdraws an email from one recipient whom it was not handed over to yet; his state before.
WITH held AS (
    SELECT id, state FROM delivery
    WHERE workspace_id = $1 AND id = $2 AND email_id IS NOT NULL AND state IN ('queued', 'deferred')
    FOR UPDATE
)
UPDATE delivery d SET state = 'cancelled', updated_at = now(), next_attempt_at = NULL
FROM held WHERE d.id = held.id AND d.workspace_id = $1
RETURNING held.state::text;

-- name: find_delivery
-- Where a delivery stands, and whether it is an email's.
SELECT email_id, state::text FROM delivery WHERE workspace_id = $1 AND id = $2;

-- name: load_emails
-- The content of the emails $1 of the workspaces $2 (pairs), whose ids lie in [$3, $4].
SELECT e.id, e.workspace_id, e.type, e.sender, e.subject, e.content, e.expires_at
FROM unnest($1::uuid[], $2::uuid[]) AS asked (id, workspace_id)
JOIN email e ON e.id = asked.id AND e.workspace_id = asked.workspace_id
WHERE e.id >= $3 AND e.id <= $4;

-- name: claim_open_deliveries
-- Fences what of the emails $1 of the workspaces $5 (pairs) is not settled, ids in [$2, $3), by the
-- tokens $4 of the leases that have their jobs now: a worker that had a job before names and records
-- nobody of it any more. Whoever it had named and not recorded is `unknown` from now on.
WITH held AS MATERIALIZED (
    SELECT d.id, d.workspace_id, d.state, d.attempts, d.transport, asked.token
    FROM unnest($1::uuid[], $4::bigint[], $5::uuid[]) AS asked (email_id, token, workspace_id)
    JOIN delivery d ON d.email_id = asked.email_id AND d.workspace_id = asked.workspace_id
    WHERE d.id >= $2 AND d.id < $3 AND d.fence < asked.token
      AND d.state IN ('queued', 'deferred', 'handed_off', 'unknown', 'failed')
    ORDER BY d.id
    FOR UPDATE OF d
), claimed AS (
    UPDATE delivery d
    SET fence = held.token, updated_at = now(),
        state = CASE WHEN held.state = 'handed_off' THEN 'unknown' ELSE held.state END
    FROM held WHERE d.id = held.id AND d.id >= $2 AND d.id < $3
)
INSERT INTO delivery_event (delivery_id, seq, workspace_id, state, attempt, detail, transport)
SELECT id, (SELECT coalesce(max(e.seq), 0) + 1 FROM delivery_event e
            WHERE e.delivery_id = held.id AND e.delivery_id >= $2 AND e.delivery_id < $3),
       workspace_id, 'unknown', attempts,
       'its worker died between handing it over and recording the answer', transport
FROM held WHERE state = 'handed_off';

-- name: load_open_deliveries
-- What of the emails $1 is not settled, ids in [$2, $3), with whether the recipient has been
-- suppressed since, and the transport that may have taken it in an earlier attempt. A failed one is
-- here because only a redriven dead letter asks for it again.
SELECT d.id, d.email_id, d.workspace_id, d.recipient, d.state::text, d.fence, d.attempts, d.type,
       d.next_attempt_at,
       CASE WHEN d.attempts > 0 THEN
           (SELECT e.transport FROM delivery_event e
            WHERE e.delivery_id = d.id AND e.delivery_id >= $2 AND e.delivery_id < $3
              AND e.state = 'unknown'
            ORDER BY e.seq DESC LIMIT 1)
       END AS may_have_it,
       EXISTS (SELECT FROM suppression s
               WHERE s.workspace_id = d.workspace_id AND s.address = lower(d.recipient)
                 AND s.stream = 'all') AS suppressed
FROM delivery d
WHERE d.email_id = ANY ($1::uuid[]) AND d.id >= $2 AND d.id < $3
  AND d.state IN ('queued', 'deferred', 'handed_off', 'unknown', 'failed')
ORDER BY d.id;

-- name: step_deliveries
-- One step of the hand-off window: records results under their fence, then names what may leave
-- next: nobody whom a newer lease has claimed. Ids lie in [$1, $2]. Results: $3 id, $4 fence,
-- $5 state, $6 reply code, $7 reply, $8 transport, $9 next attempt, $10 whether it was tried: what
-- was handed back untried has had no attempt, and no event tells of it. To be named: $11 id,
-- $12 fence, $13 the transport that is to have it (none: known with the result); $14: also who may
-- have got it, and who failed and is asked for again. Returns what was recorded and what was named.
-- Said again after a commit whose answer got lost, it names the same and records nothing twice.
WITH result AS (
    SELECT * FROM unnest($3::uuid[], $4::bigint[], $5::text[], $6::smallint[], $7::text[],
                         $8::text[], $9::timestamptz[], $10::boolean[])
        AS r (id, fence, state, reply_code, reply, transport, next_attempt_at, tried)
), recorded AS (
    UPDATE delivery d
    SET state = r.state::delivery_state, reply_code = r.reply_code, reply = r.reply,
        transport = CASE WHEN r.tried THEN r.transport ELSE d.transport END,
        attempts = CASE WHEN r.tried THEN d.attempts ELSE d.attempts - 1 END,
        next_attempt_at = r.next_attempt_at, updated_at = now()
    FROM result r
    WHERE d.id = r.id AND d.id >= $1 AND d.id <= $2
      AND d.fence = r.fence AND d.state = 'handed_off'
    RETURNING d.id, d.workspace_id, d.attempts, d.state, d.reply_code, d.reply, d.transport, r.tried
), held AS (
    SELECT d.id, n.fence, n.transport, d.state = 'handed_off' AS again
    FROM unnest($11::uuid[], $12::bigint[], $13::text[]) AS n (id, fence, transport)
    JOIN delivery d ON d.id = n.id
    WHERE d.id >= $1 AND d.id <= $2
      AND (d.fence = n.fence AND d.state = 'handed_off'
           OR d.fence <= n.fence AND (d.state IN ('queued', 'deferred')
                                      OR $14 AND d.state IN ('unknown', 'failed')))
    FOR UPDATE OF d
), named AS (
    UPDATE delivery d
    SET state = 'handed_off', fence = held.fence,
        attempts = d.attempts + CASE WHEN held.again THEN 0 ELSE 1 END,
        transport = CASE WHEN held.transport = '' THEN d.transport ELSE held.transport END,
        handed_off_at = now(), updated_at = now(), next_attempt_at = NULL
    FROM held WHERE d.id = held.id AND d.id >= $1 AND d.id <= $2
    RETURNING d.id
), told AS (
    INSERT INTO delivery_event (delivery_id, seq, workspace_id, state, attempt, reply_code, detail,
                                transport)
    SELECT t.id, (SELECT coalesce(max(e.seq), 0) + 1 FROM delivery_event e
                  WHERE e.delivery_id = t.id AND e.delivery_id >= $1 AND e.delivery_id <= $2),
           t.workspace_id, t.state, t.attempts, t.reply_code, t.reply, t.transport
    FROM recorded t WHERE t.state IN ('deferred', 'unknown') AND t.tried
)
SELECT id, 'recorded' AS what, state::text FROM recorded
UNION ALL
SELECT id, 'named', 'handed_off' FROM named;

-- name: settle_deliveries
-- Ends deliveries that are not handed over at all: $3 id, $4 fence, $5 state, $6 why. One that an
-- older fence had named may have left, so it becomes `unknown` whatever was wanted for it.
WITH wanted AS (
    SELECT * FROM unnest($3::uuid[], $4::bigint[], $5::text[], $6::text[])
        AS w (id, fence, state, reply)
), held AS (
    SELECT d.id, d.workspace_id, d.state AS old_state, d.attempts, w.fence, w.reply,
           CASE WHEN d.state IN ('handed_off', 'unknown') THEN 'unknown'
                ELSE w.state END::delivery_state AS state
    FROM wanted w JOIN delivery d ON d.id = w.id
    WHERE d.id >= $1 AND d.id <= $2
      AND (d.fence <= w.fence AND d.state IN ('queued', 'deferred', 'unknown')
           OR d.fence < w.fence AND d.state = 'handed_off')
    FOR UPDATE OF d
), settled AS (
    UPDATE delivery d
    SET state = held.state, fence = held.fence, reply = held.reply, next_attempt_at = NULL,
        updated_at = now()
    FROM held WHERE d.id = held.id AND d.id >= $1 AND d.id <= $2
    RETURNING d.id, d.state::text
)
SELECT id, state FROM settled;

-- name: tell_passed
-- Who refused deliveries before the transport that a result tells of, within one attempt: ids lie in
-- [$1, $2]; $3 workspace, $4 id, $5 attempt, $6 transport, $7 reply code, $8 reply. Said again after
-- a commit whose answer got lost, it adds nothing.
INSERT INTO delivery_event (delivery_id, seq, workspace_id, state, attempt, reply_code, detail,
                            transport)
SELECT p.id, (SELECT coalesce(max(e.seq), 0) FROM delivery_event e
              WHERE e.delivery_id = p.id AND e.delivery_id >= $1 AND e.delivery_id <= $2)
             + row_number() OVER (PARTITION BY p.id ORDER BY p.place),
       $3, 'deferred', p.attempt, p.reply_code, p.reply, p.transport
FROM unnest($4::uuid[], $5::smallint[], $6::text[], $7::smallint[], $8::text[])
    WITH ORDINALITY AS p (id, attempt, transport, reply_code, reply, place)
WHERE NOT EXISTS (SELECT FROM delivery_event e
                  WHERE e.delivery_id = p.id AND e.delivery_id >= $1 AND e.delivery_id <= $2
                    AND e.attempt = p.attempt AND e.transport = p.transport);
