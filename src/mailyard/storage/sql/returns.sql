-- What comes back after the hand-over. Ids of deliveries come with their lowest and highest, so that
-- only those months' partitions are opened.

-- name: load_returned
-- The mails $1 that came back, in the retention class $4: they belong to no workspace before a
-- delivery says whose they are (workspace_id is $5). $2 and $3 are the lowest and highest of $1.
SELECT id, recipients, raw, blob
FROM message
WHERE workspace_id = $5 AND id = ANY($1::uuid[]) AND id BETWEEN $2 AND $3 AND retention_days = $4;

-- name: read_returned
-- The bytes of the mail that told event $3 of delivery $2 of workspace $1, unless they have expired.
-- $4: the retention class, $5: nobody's workspace, in which such mail lies.
SELECT m.raw, m.blob
FROM delivery_event e
JOIN message m ON m.id = e.message_id AND m.workspace_id = $5 AND m.retention_days = $4
WHERE e.workspace_id = $1 AND e.delivery_id = $2 AND e.seq = $3;

-- name: lock_deliveries
-- The deliveries $1, ids in [$2, $3], held until the end of the transaction.
SELECT id, workspace_id, email_id, campaign_id, recipient, state::text, attempts, reply_code, reply,
       reason, transport, updated_at
FROM delivery
WHERE id = ANY($1::uuid[]) AND id >= $2 AND id <= $3
ORDER BY id
FOR UPDATE;

-- name: known_events
-- Of the deliveries $1, ids in [$2, $3]: how many events they have, when the last of our own was, the
-- states that they tell, and which of the keys $4 stand already. Held deliveries of any workspace_id.
SELECT delivery_id, max(seq) AS last, count(*) AS events, max(at) FILTER (WHERE kind = '') AS own,
       array_agg(state::text || ' ' || attempt) FILTER (WHERE kind IN ('', state::text)) AS told,
       array_agg(event_key) FILTER (WHERE event_key = ANY($4::bytea[])) AS keys
FROM delivery_event
WHERE delivery_id = ANY($1::uuid[]) AND delivery_id >= $2 AND delivery_id <= $3
GROUP BY delivery_id;

-- name: find_by_provider_id
-- The deliveries of workspace $1 that a provider knows by the ids $2, ids from $3 on.
SELECT id, recipient, coalesce(provider_id, substr(reply, 4)) AS provider_id
FROM delivery
WHERE workspace_id = $1 AND id >= $3 AND coalesce(provider_id, substr(reply, 4)) = ANY($2::text[])
  AND (provider_id IS NOT NULL OR reply LIKE 'id=%');

-- name: write_events
-- Adds events to stories: $1 delivery, $2 seq, $3 workspace, $4 at, $5 state, $6 attempt,
-- $7 reply code, $8 detail, $9 transport, $10 kind, $11 reason, $12 status, $13 source, $14 mail,
-- $15 key.
INSERT INTO delivery_event (delivery_id, seq, workspace_id, at, state, attempt, reply_code, detail,
                            transport, kind, reason, status, source, message_id, event_key)
SELECT e.delivery_id, e.seq, e.workspace_id, e.at, e.state::delivery_state, e.attempt, e.reply_code,
       e.detail, e.transport, e.kind, e.reason, e.status, e.source, e.message_id, e.event_key
FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::timestamptz[], $5::text[], $6::smallint[],
            $7::smallint[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
            $13::text[], $14::uuid[], $15::bytea[])
    AS e (delivery_id, seq, workspace_id, at, state, attempt, reply_code, detail, transport, kind,
          reason, status, source, message_id, event_key);

-- name: move_deliveries
-- Gives deliveries (ids in [$1, $2], of the workspaces $4) what was told last: $3 id, $5 state,
-- $6 reply code, $7 reply, $8 reason. The name that a provider gave one is kept.
UPDATE delivery d
SET state = m.state::delivery_state, reply_code = m.reply_code, reply = m.reply, reason = m.reason,
    provider_id = coalesce(d.provider_id, CASE WHEN d.reply LIKE 'id=%' THEN substr(d.reply, 4) END),
    updated_at = now(), next_attempt_at = NULL
FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::smallint[], $7::text[], $8::text[])
    AS m (id, workspace_id, state, reply_code, reply, reason)
WHERE d.id = m.id AND d.workspace_id = m.workspace_id AND d.id >= $1 AND d.id <= $2;

-- name: add_campaign_results
-- Adds to campaigns' results: $1 campaign, $2 workspace, $3 delivered, $4 bounced, $5 complained.
INSERT INTO campaign_result (campaign_id, slot, workspace_id, delivered, bounced, complained)
SELECT r.campaign_id, pg_backend_pid() % 8, r.workspace_id, r.delivered, r.bounced, r.complained
FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
    AS r (campaign_id, workspace_id, delivered, bounced, complained)
JOIN campaign c ON c.id = r.campaign_id AND c.workspace_id = r.workspace_id
ORDER BY r.campaign_id
ON CONFLICT (campaign_id, slot) DO UPDATE
    SET delivered = campaign_result.delivered + excluded.delivered,
        bounced = campaign_result.bounced + excluded.bounced,
        complained = campaign_result.complained + excluded.complained;

-- name: give_reasons
-- Says why deliveries (ids in [$1, $2]) bounced: $3 id, $4 workspace, $5 reason.
UPDATE delivery d SET reason = r.reason
FROM unnest($3::uuid[], $4::uuid[], $5::text[]) AS r (id, workspace_id, reason)
WHERE d.id = r.id AND d.workspace_id = r.workspace_id AND d.id >= $1 AND d.id <= $2
  AND d.state = 'bounced';

-- name: forwarded_among
-- Which of the deliveries $1, ids in [$2, $3], are of mail that was sent on, and whose (workspace_id).
SELECT id, workspace_id FROM delivery
WHERE id = ANY($1::uuid[]) AND id BETWEEN $2 AND $3 AND type = 'forward';

-- name: forwarded_within
-- Deliveries of mail that was sent on, whosever (workspace_id), with ids in one of the ranges from $1
-- up to below $2, and what they sent. $3 and $4 are the lowest of $1 and the highest of $2.
SELECT delivery.id, delivery.recipient, email.content
FROM unnest($1::uuid[], $2::uuid[]) AS asked (lowest, beyond)
JOIN delivery
  ON delivery.id >= asked.lowest AND delivery.id < asked.beyond
 AND delivery.id >= $3 AND delivery.id < $4 AND delivery.type = 'forward'
JOIN email ON email.id = delivery.email_id AND email.workspace_id = delivery.workspace_id;

-- name: forwarded_mail
-- The mail that delivery $1 sent on, and the bytes of the mail $2 that came back, which lies in nobody's
-- workspace $3 in the retention class $4; workspace_id is the delivery's.
SELECT delivery.workspace_id, email.content, bounce.id, bounce.raw, bounce.blob
FROM delivery
JOIN email ON email.id = delivery.email_id AND email.workspace_id = delivery.workspace_id
JOIN message AS bounce
  ON bounce.id = $2 AND bounce.workspace_id = $3 AND bounce.retention_days = $4
WHERE delivery.id = $1 AND delivery.type = 'forward';
