-- Endpoints that are told of events, their lines, and how it went.

-- name: add_webhook
-- A new endpoint; it is told from this transaction on.
INSERT INTO webhook (id, workspace_id, name, url, kinds, filter, payload, ordered, concurrency)
VALUES ($2, $1, $3, $4, $5, $6, $7, $8, $9);

-- name: change_webhook
-- Another address, other events, another way.
UPDATE webhook SET name = $3, url = $4, kinds = $5, filter = $6, payload = $7, ordered = $8,
                   concurrency = $9
WHERE workspace_id = $1 AND id = $2;

-- name: enable
-- Tells the endpoint again, of what happens from this transaction on; what waits goes at once.
UPDATE webhook SET enabled = true, disabled_at = NULL, disabled_why = '', failures = 0,
                   from_xid = pg_current_xact_id(), failing_since = NULL, rests_until = NULL,
                   next_at = $3
WHERE workspace_id = $1 AND id = $2 AND NOT enabled;

-- name: disable
-- Tells the endpoint nothing more at $4, because of $3 (empty: a person wants it so).
UPDATE webhook SET enabled = false, disabled_at = $4, disabled_why = $3, next_at = NULL
WHERE workspace_id = $1 AND id = $2 AND enabled
RETURNING id;

-- name: webhooks
-- Newest first, ids below $2.
SELECT id, workspace_id, name, url, filter, payload, ordered, concurrency, enabled, disabled_at,
       disabled_why, failures, failing_since, rests_until, slow, told_at
FROM webhook WHERE workspace_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: webhook
-- One endpoint.
SELECT id, workspace_id, name, url, filter, payload, ordered, concurrency, enabled, disabled_at,
       disabled_why, failures, failing_since, rests_until, slow, told_at
FROM webhook WHERE workspace_id = $1 AND id = $2;

-- name: remove_webhook
-- Takes an endpoint away, its secrets with it.
DELETE FROM webhook WHERE workspace_id = $1 AND id = $2;

-- name: remove_line
-- What waits for an endpoint that is gone waits for nothing: no row of it is kept.
DELETE FROM webhook_delivery WHERE workspace_id = $1 AND webhook_id = $2 AND state = 'waiting';

-- name: add_secret
-- Another secret of an endpoint.
INSERT INTO webhook_secret (id, webhook_id, workspace_id, sealed_secret)
VALUES ($3, $2, $1, $4);

-- name: expire_secrets
-- The secrets of an endpoint go at $3, or before as they were to.
UPDATE webhook_secret SET expires_at = least(expires_at, $3)
WHERE workspace_id = $1 AND webhook_id = $2;

-- name: secrets
-- What an endpoint's requests are signed with at $3, the newest first.
SELECT id, sealed_secret, expires_at FROM webhook_secret
WHERE workspace_id = $1 AND webhook_id = $2 AND (expires_at IS NULL OR expires_at > $3)
ORDER BY id DESC;

-- name: sweep_secrets
-- Forgets the secrets of all workspaces that have gone by $1.
DELETE FROM webhook_secret WHERE expires_at <= $1;

-- name: sealed_otherwise
-- Up to $2 secrets that were sealed under another master key than $1, whosever they are.
SELECT id, sealed_secret FROM webhook_secret WHERE substr(sealed_secret, 2, 4) <> $1 LIMIT $2;

-- name: seal_anew
-- The secrets $1, where they still are $2, as $3.
UPDATE webhook_secret s SET sealed_secret = n.fresh
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS n (id, stale, fresh)
WHERE s.id = n.id AND s.sealed_secret = n.stale;

-- name: anybody
-- From which transaction on any endpoint of any workspace is told; null: there is none.
SELECT min(from_xid::text::bigint) FROM webhook WHERE enabled;

-- name: hold_cursor
-- Up to where all endpoints have been dealt with. Nothing when another process deals now.
SELECT xid::text::bigint AS xid, id FROM webhook_cursor FOR UPDATE SKIP LOCKED;

-- name: move_cursor
-- Everything up to ($1, $2) has been dealt.
UPDATE webhook_cursor SET xid = $1::bigint::text::xid8, id = $2;

-- name: read_events
-- The next $3 rows of all workspaces behind ($1, $2), below the oldest transaction that still runs;
-- `items` only of those that an endpoint may want. That endpoint's own transaction is older than the
-- row's and so has ended, which is why one look finds it.
SELECT event.xid::text::bigint AS xid, event.id, event.at, event.workspace_id, event.kind,
       CASE WHEN EXISTS (
           SELECT FROM webhook
           WHERE webhook.workspace_id = event.workspace_id AND webhook.enabled
             AND webhook.from_xid <= event.xid AND event.kind = ANY (webhook.kinds)
       ) THEN event.items END AS items
FROM live_event AS event
WHERE (event.xid, event.id) > ($1::bigint::text::xid8, $2::bigint)
  AND event.xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY event.xid, event.id
LIMIT $3;

-- name: needs_events
-- Whether events of the stream that were written from $1 to $2 are still to be put into the line of an
-- endpoint of any workspace, or a replay reads in that span.
SELECT EXISTS (
    SELECT
    FROM webhook_cursor AS dealt
    JOIN live_event AS event ON (event.xid, event.id) > (dealt.xid, dealt.id)
    JOIN webhook ON webhook.workspace_id = event.workspace_id AND webhook.enabled
                AND webhook.from_xid <= event.xid AND event.kind = ANY (webhook.kinds)
    WHERE event.at >= $1 AND event.at < $2
) OR EXISTS (
    SELECT FROM webhook_replay WHERE done_at IS NULL AND since < $2 AND until > $1
);

-- name: untold_events
-- Which endpoints have not been told of how many events, of the kinds that they want, that were written
-- from $1 to $2, and since when; without those whose log says so already, under the place $3.
SELECT webhook.id, webhook.workspace_id, min(event.at) AS since,
       sum(json_array_length(event.items::json))::bigint AS events
FROM webhook_cursor AS dealt
JOIN live_event AS event ON (event.xid, event.id) > (dealt.xid, dealt.id)
JOIN webhook ON webhook.workspace_id = event.workspace_id AND webhook.enabled
            AND webhook.from_xid <= event.xid AND event.kind = ANY (webhook.kinds)
WHERE event.at >= $1 AND event.at < $2
  AND NOT EXISTS (
      SELECT FROM webhook_delivery AS said
      WHERE said.webhook_id = webhook.id AND said.state = 'dead' AND said.event = $3
  )
GROUP BY webhook.id, webhook.workspace_id;

-- name: tell_gaps
-- Lines in the logs of endpoints for what is gone: ids $1, workspace_ids $2, webhooks $3, items $4,
-- times $5, reasons $6; of the kind $7 under the place $8, at $9. They never wait.
INSERT INTO webhook_delivery (id, workspace_id, webhook_id, seq, event, kind, item, happened_at,
                              state, waits_since, due_at, why, ended_at)
SELECT id, workspace_id, webhook_id, 0, $8, $7, item, happened_at, 'dead', $9, $9, why, $9
FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::text[])
     AS given (id, workspace_id, webhook_id, item, happened_at, why);

-- name: hold_listening
-- The endpoints of the workspaces $1 that are told, held: whoever looks whether their lines are empty
-- waits until this transaction has filled them.
SELECT id, workspace_id, from_xid::text::bigint AS from_xid, filter, slow OR failures > 0 AS slow,
       rests_until > $2 AS rests
FROM webhook WHERE workspace_id = ANY ($1::uuid[]) AND enabled
ORDER BY id
FOR UPDATE;

-- name: add_deliveries
-- Puts events into lines: ids $1, workspace_ids $2, webhooks $3, places $4, kinds $5, items $6, times
-- $7, in this order; due at $8.
INSERT INTO webhook_delivery (id, workspace_id, webhook_id, seq, event, kind, item, happened_at,
                              state, waits_since, due_at)
SELECT id, workspace_id, webhook_id, nextval('webhook_delivery_seq'), event, kind, item,
       happened_at, 'waiting', $8, $8
FROM (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[],
                         $7::timestamptz[])
    WITH ORDINALITY AS given (id, workspace_id, webhook_id, event, kind, item, happened_at, nth)
    ORDER BY nth
) AS given;

-- name: take_due
-- Endpoints of all workspaces in whose lines something is due at $1; up to $2.
UPDATE webhook SET next_at = NULL
WHERE id IN (
    SELECT id FROM webhook WHERE next_at <= $1 ORDER BY next_at LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING id, workspace_id, slow OR failures > 0 AS slow;

-- name: due
-- Up to $4 deliveries of an endpoint that are due at $3, the longest due first.
SELECT id, event, kind, item, happened_at, attempts, attempts_before, seq
FROM webhook_delivery
WHERE workspace_id = $1 AND webhook_id = $2 AND state = 'waiting' AND due_at <= $3
ORDER BY due_at, seq LIMIT $4;

-- name: front
-- The first $3 deliveries of an endpoint's line, due or not.
SELECT id, event, kind, item, happened_at, attempts, attempts_before, seq, due_at
FROM webhook_delivery
WHERE workspace_id = $1 AND webhook_id = $2 AND state = 'waiting'
ORDER BY seq LIMIT $3;

-- name: record_attempts
-- Notes requests and answers: deliveries $2, numbers $3, times $4, milliseconds $5, addresses $6,
-- headers $7, bodies $8, statuses $9, answers' headers $10 and bodies $11, errors $12. One that a
-- stalled worker has noted already stays.
INSERT INTO webhook_attempt (workspace_id, delivery_id, number, at, took_ms, url, request_headers,
                             request_body, status, answer_headers, answer_body, error)
SELECT $1, *
FROM unnest($2::uuid[], $3::smallint[], $4::timestamptz[], $5::integer[], $6::text[], $7::text[],
            $8::text[], $9::smallint[], $10::text[], $11::text[], $12::text[])
ON CONFLICT DO NOTHING;

-- name: record_outcomes
-- What became of deliveries $2 of workspace $1 after attempt $3: states $4, due $5, statuses $6,
-- reasons $7; at $8. Only of those that still wait and that nobody else has tried meanwhile.
UPDATE webhook_delivery AS delivery
SET attempts = given.number, state = given.state, due_at = coalesce(given.due_at, delivery.due_at),
    status = given.status, why = given.why,
    ended_at = CASE given.state WHEN 'waiting' THEN NULL ELSE $8::timestamptz END
FROM unnest($2::uuid[], $3::smallint[], $4::text[], $5::timestamptz[], $6::smallint[], $7::text[])
     AS given (id, number, state, due_at, status, why)
WHERE delivery.workspace_id = $1 AND delivery.id = given.id AND delivery.state = 'waiting'
  AND delivery.id BETWEEN $9 AND $10
  AND delivery.attempts = given.number - 1;

-- name: bury_line
-- What waits for an endpoint ($2) and was put into its line before $3 is dead at $4, because of $5.
UPDATE webhook_delivery
SET state = 'dead', ended_at = $4, why = CASE why WHEN '' THEN $5 ELSE $5 || '; last: ' || why END
WHERE workspace_id = $1 AND webhook_id = $2 AND state = 'waiting' AND waits_since < $3;

-- name: hold_webhook
-- Holds an endpoint while its state is written: whoever fills its line waits.
SELECT enabled, failures, failing_since FROM webhook
WHERE workspace_id = $1 AND id = $2 FOR UPDATE;

-- name: next_due
-- When the next delivery in an endpoint's line is due; of one that keeps the order, the first.
SELECT CASE WHEN $3
    THEN (SELECT due_at FROM webhook_delivery
          WHERE workspace_id = $1 AND webhook_id = $2 AND state = 'waiting' ORDER BY seq LIMIT 1)
    ELSE (SELECT min(due_at) FROM webhook_delivery
          WHERE workspace_id = $1 AND webhook_id = $2 AND state = 'waiting')
END;

-- name: set_health
-- How an endpoint fares: failures in a row $3 since $4, rests until $5, slow $6, next due at $7, took
-- something at $8.
UPDATE webhook SET failures = $3, failing_since = $4, rests_until = $5, slow = $6, next_at = $7,
                   told_at = coalesce($8, told_at)
WHERE workspace_id = $1 AND id = $2;

-- name: deliveries
-- The log of an endpoint, newest first, ids below $3; of state $4 or of any.
SELECT id, event, kind, happened_at, state, attempts, due_at, status, why, ended_at
FROM webhook_delivery
WHERE workspace_id = $1 AND webhook_id = $2 AND id < $3 AND ($4 = '' OR state = $4)
ORDER BY id DESC LIMIT $5;

-- name: delivery
-- One delivery of an endpoint.
SELECT id, event, kind, happened_at, state, attempts, due_at, status, why, ended_at, webhook_id, item
FROM webhook_delivery
WHERE workspace_id = $1 AND id = $2;

-- name: attempts
-- The requests of a delivery and their answers, in order.
SELECT number, at, took_ms, url, request_headers, request_body, status, answer_headers, answer_body,
       error
FROM webhook_attempt WHERE workspace_id = $1 AND delivery_id = $2 ORDER BY number;

-- name: redrive
-- Puts dead deliveries ($3, or all dead ones when null, up to $4) of an endpoint back into its line.
UPDATE webhook_delivery
SET state = 'waiting', attempts_before = attempts, waits_since = $5, due_at = $5, ended_at = NULL
WHERE id IN (
    SELECT id FROM webhook_delivery
    WHERE workspace_id = $1 AND webhook_id = $2 AND state = 'dead'
      AND ($3::uuid[] IS NULL OR id = ANY ($3))
    ORDER BY id LIMIT $4
    FOR UPDATE SKIP LOCKED
)
RETURNING id;

-- name: line_due
-- The line of an endpoint is looked at anew: something in it may be due at $3.
UPDATE webhook SET next_at = least(next_at, $3) WHERE workspace_id = $1 AND id = $2 AND enabled;

-- name: counts
-- How much waits for endpoints ($2) and how much is dead, each counted up to $3.
SELECT id,
       (SELECT count(*) FROM (
           SELECT FROM webhook_delivery AS delivery
           WHERE delivery.webhook_id = given.id AND delivery.workspace_id = $1
             AND delivery.state = 'waiting'
           LIMIT $3) AS waiting) AS waiting,
       (SELECT count(*) FROM (
           SELECT FROM webhook_delivery AS delivery
           WHERE delivery.webhook_id = given.id AND delivery.workspace_id = $1
             AND delivery.state = 'dead'
           LIMIT $3) AS dead) AS dead
FROM unnest($2::uuid[]) AS given (id);

-- name: add_replay
-- Asks for the events from $4 to $5 to be put into an endpoint's line once more.
INSERT INTO webhook_replay (id, workspace_id, webhook_id, since, until)
VALUES ($3, $1, $2, $4, $5);

-- name: replay
-- One replay, held.
SELECT id, webhook_id, since, until, xid::text::bigint AS xid, row_id, events, done_at,
       made_xid < pg_snapshot_xmin(pg_current_snapshot()) AS settled
FROM webhook_replay WHERE workspace_id = $1 AND id = $2 FOR UPDATE;

-- name: replays
-- The last $3 replays of an endpoint.
SELECT id, webhook_id, since, until, events, done_at
FROM webhook_replay WHERE workspace_id = $1 AND webhook_id = $2 ORDER BY id DESC LIMIT $3;

-- name: move_replay
-- A replay has got to ($3, $4), $5 more events in the line; over at $6.
UPDATE webhook_replay SET xid = $3::bigint::text::xid8, row_id = $4, events = events + $5,
                          done_at = $6
WHERE workspace_id = $1 AND id = $2;

-- name: read_again
-- The next $6 rows of a workspace's stream behind ($2, $3), of kinds $7, that were written from $4 to
-- $5.
SELECT xid::text::bigint AS xid, id, at, workspace_id, kind, items
FROM live_event
WHERE workspace_id = $1 AND (xid, id) > ($2::bigint::text::xid8, $3::bigint)
  AND at >= $4 AND at < $5 AND kind = ANY ($7::text[])
  AND xid < pg_snapshot_xmin(pg_current_snapshot())
ORDER BY live_event.xid, live_event.id
LIMIT $6;

-- name: add_test
-- What the button sends, as a line in the log: it never waits.
INSERT INTO webhook_delivery (id, workspace_id, webhook_id, seq, event, kind, item, happened_at,
                              state, attempts, waits_since, due_at, status, why, ended_at)
VALUES ($3, $1, $2, 0, $4, $5, $6, $7, $8, 1, $7, $7, $9, $10, $7);
