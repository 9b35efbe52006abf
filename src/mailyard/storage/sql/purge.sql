-- A purge: what is left of inboxes goes at once, wherever it lies. Nothing in an inbox is older than
-- it, so its id bounds the partitions that are looked at.

-- name: purge_inboxes
-- Which of the inboxes $2 of workspace $1 are there, living or not. $3 is the lowest of them.
SELECT id FROM inbox WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id >= $3;

-- name: end_inboxes
-- The inboxes $2 of workspace $1 take and show nothing any more. $3 is the lowest of them.
WITH ended AS (
    UPDATE inbox SET deleted_at = coalesce(deleted_at, now())
    WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id >= $3
    RETURNING id, address
)
DELETE FROM address USING ended
WHERE address.workspace_id = $1 AND address.address = ended.address
  AND address.inbox_id = ended.id;

-- name: next_lines
-- Up to $4 messages in the inboxes $2 of workspace $1, of which $3 is the lowest, and of those that
-- they keep out.
SELECT inbox_id, message_id
FROM inbox_message
WHERE workspace_id = $1 AND inbox_id = ANY($2::uuid[])
  AND message_id >= (left($3::uuid::text, 14) || '7000-8000-000000000000')::uuid
UNION ALL
SELECT inbox_id, message_id
FROM held_message
WHERE workspace_id = $1 AND inbox_id = ANY($2::uuid[])
  AND message_id >= (left($3::uuid::text, 14) || '7000-8000-000000000000')::uuid
LIMIT $4;

-- name: drop_unseen
-- Deletes those of the messages $2 of workspace $1 that lie in no inbox any more, and says which, and
-- whether they came for several; those that others still have forget the recipients that were the inboxes $5. $3 and $4 are the lowest and
-- highest of $2.
WITH seen AS (
    SELECT message_id FROM inbox_message
    WHERE workspace_id = $1 AND message_id = ANY($2::uuid[]) AND message_id BETWEEN $3 AND $4
      AND (deleted_at IS NULL OR deleted_at > now()) AND inbox_id <> ALL($5::uuid[])
    UNION
    SELECT message_id FROM held_message
    WHERE workspace_id = $1 AND message_id = ANY($2::uuid[]) AND message_id BETWEEN $3 AND $4
      AND inbox_id <> ALL($5::uuid[])
), kept AS (
    UPDATE message
    SET recipients = ARRAY(SELECT recipient FROM unnest(recipients, inbox_ids) AS place (recipient, inbox_id)
                           WHERE inbox_id <> ALL($5::uuid[])),
        filed_under = CASE WHEN filed_under IS NOT NULL THEN
            ARRAY(SELECT own FROM unnest(filed_under, inbox_ids) AS place (own, inbox_id)
                  WHERE inbox_id <> ALL($5::uuid[])) END,
        inbox_ids = ARRAY(SELECT inbox_id FROM unnest(inbox_ids) AS inbox_id
                          WHERE inbox_id <> ALL($5::uuid[]))
    WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id BETWEEN $3 AND $4
      AND id IN (SELECT message_id FROM seen)
)
DELETE FROM message
WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id BETWEEN $3 AND $4
  AND id NOT IN (SELECT message_id FROM seen)
RETURNING id, cardinality(inbox_ids) > 1 AS shared;

-- part: about
-- Kinds that can name inboxes or messages: those of $5, or null: all that are not known to name none.
CASE WHEN $5::text[] IS NOT NULL THEN kind = ANY($5)
     ELSE kind NOT IN ('delivery.changed', 'campaign.progress', 'queue.depth', 'demo.progress',
                       'import.progress', 'webhook.disabled') END

-- name: results_of
-- The kept answers that analyses of the messages $2 of workspace $1 come from. $3 and $4 are the lowest
-- and highest of $2.
SELECT DISTINCT result_key FROM message_analysis
WHERE workspace_id = $1 AND message_id = ANY($2::uuid[]) AND message_id BETWEEN $3 AND $4
  AND result_key IS NOT NULL;

-- name: drop_results
-- Deletes those of the kept answers $2 of workspace $1 that no message asks for any more.
DELETE FROM analysis_result AS result
WHERE workspace_id = $1 AND key = ANY($2::bytea[])
  AND NOT EXISTS (
      SELECT FROM message_analysis AS asked
      WHERE asked.result_key = result.key AND asked.workspace_id = $1
  );

-- name: forget_events
-- Live events of workspace $1 since $4 that name the inboxes $2 or the messages $3 (TypeIDs) say
-- nothing any more: every value is empty. Their places stay, so that no cursor is off. Where few are
-- looked for, a row's text is searched before it is read as JSON, which costs ten times as much.
UPDATE live_event
SET items = (
    SELECT json_agg(
        CASE WHEN item ->> 'inbox_id' = ANY($2::text[]) OR item ->> 'message_id' = ANY($3::text[])
                  OR item::jsonb -> 'inbox_ids' ?| $2::text[]
             THEN (SELECT json_object_agg(key, '') FROM json_object_keys(item) AS key)
             ELSE item END
        ORDER BY place)::text
    FROM json_array_elements(items::json) WITH ORDINALITY AS element (item, place)
)
WHERE workspace_id = $1 AND at >= $4
  AND
-- use: about
  AND CASE WHEN cardinality($2::text[]) + cardinality($3::text[]) > 8 THEN true
           ELSE EXISTS (SELECT FROM unnest($2::text[] || $3::text[]) AS name
                        WHERE strpos(items, name) > 0) END
  AND EXISTS (
      SELECT FROM json_array_elements(items::json) AS item
      WHERE item ->> 'inbox_id' = ANY($2::text[]) OR item ->> 'message_id' = ANY($3::text[])
         OR item::jsonb -> 'inbox_ids' ?| $2::text[]
  );

-- name: forget_told
-- What webhooks of workspace $1 were told, or wait to be told, of the inboxes $2 and the messages $3
-- (TypeIDs). $4: the lowest id of such deliveries.
WITH gone AS (
    DELETE FROM webhook_delivery
    WHERE workspace_id = $1 AND id >= $4
      AND
-- use: about
      AND (item::json ->> 'inbox_id' = ANY($2::text[]) OR item::json ->> 'message_id' = ANY($3::text[])
           OR item::jsonb -> 'inbox_ids' ?| $2::text[])
    RETURNING id
)
DELETE FROM webhook_attempt USING gone
WHERE workspace_id = $1 AND delivery_id >= $4 AND delivery_id = gone.id;

-- name: forget_answers
-- Answers of workspace $1 that are kept for idempotency keys and name any of $2 (TypeIDs of inboxes and
-- messages): what an answer names is found once, however many are looked for.
DELETE FROM idempotency_key
WHERE workspace_id = $1
  AND (position('\x6962785f'::bytea IN answer) > 0 OR position('\x6d73675f'::bytea IN answer) > 0)
  AND EXISTS (
      SELECT FROM regexp_matches(
          encode(answer, 'escape'), '(?:ibx|msg)_[0-9a-hjkmnp-tv-z]{26}', 'g'
      ) AS named
      WHERE named[1] = ANY($2::text[])
  );

-- name: blank_audit
-- What the audit log keeps of the subjects $2 (TypeIDs) of workspace $1 is who did what and when, no
-- longer what was there. $3: the lowest id of theirs.
UPDATE audit_log SET before = NULL, after = NULL
WHERE workspace_id = $1 AND id >= $3 AND subject = ANY($2::text[])
  AND (before IS NOT NULL OR after IS NOT NULL);

-- part: without
-- What is left of inbox_ids when the inboxes $2 are gone.
ARRAY(SELECT one FROM unnest(inbox_ids) AS one WHERE one <> ALL($2::uuid[]))

-- name: forget_dmarc
-- DMARC reports of workspace $1 that came to the inboxes $2 alone go, with their rows; those that came
-- to others too forget these. How many went.
WITH known AS (
    UPDATE dmarc_report
    SET inbox_ids =
-- use: without
    WHERE workspace_id = $1 AND inbox_ids && $2::uuid[] AND NOT inbox_ids <@ $2::uuid[]
), gone AS (
    DELETE FROM dmarc_report
    WHERE workspace_id = $1 AND inbox_ids && $2::uuid[] AND inbox_ids <@ $2::uuid[]
    RETURNING id
)
SELECT count(*) FROM gone;

-- name: forget_tls
-- The same of TLS reports.
WITH known AS (
    UPDATE tls_report
    SET inbox_ids =
-- use: without
    WHERE workspace_id = $1 AND inbox_ids && $2::uuid[] AND NOT inbox_ids <@ $2::uuid[]
), gone AS (
    DELETE FROM tls_report
    WHERE workspace_id = $1 AND inbox_ids && $2::uuid[] AND inbox_ids <@ $2::uuid[]
    RETURNING id
)
SELECT count(*) FROM gone;

-- name: blank_dead
-- What dead letters of workspace $1 that name any of $2 (ids of inboxes or messages) say of their
-- failure: it may quote a mail. They themselves hold ids alone, and stay until they are discarded.
UPDATE job_dead AS dead SET error = ''
FROM queue_line AS line
WHERE line.id = abs(dead.line_id) AND line.workspace_id = $1 AND dead.error <> ''
  AND EXISTS (
      SELECT FROM regexp_matches(
          encode(dead.payload, 'escape'),
          '[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}', 'g'
      ) AS named
      WHERE named[1]::uuid = ANY($2::uuid[])
  );

-- name: drop_inboxes
-- Deletes the inboxes $2 of workspace $1, of which $3 is the lowest.
DELETE FROM inbox WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id >= $3;

-- name: ended_inboxes
-- Up to $2 inboxes, in every workspace, that were deleted more than $1 seconds ago, or ran out so long
-- ago, and lie where no partition leaves soon: what they held is to be deleted row by row.
(SELECT workspace_id, id FROM inbox
 WHERE retention_days IN (0, 400) AND deleted_at < now() - make_interval(secs => $1) LIMIT $2)
UNION
(SELECT workspace_id, id FROM inbox
 WHERE retention_days = 0 AND expires_at < now() - make_interval(secs => $1) LIMIT $2);
