-- Campaigns: their states, how they are cut into chunks, and what handing off writes.

-- name: insert_campaign
-- A new campaign, in draft.
INSERT INTO campaign (id, workspace_id, name, type, template_id, template_version, list_id, sender,
                      reply_to, list_unsubscribe, rate_per_s, topic_id, track_opens, track_clicks,
                      utm, send_at, local_time, segment_id, state)
VALUES ($2, $1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 'draft');

-- name: get_campaign
-- One campaign.
SELECT id, workspace_id, name, type, template_id,
       coalesce(template_version, (SELECT t.version FROM template t
                                   WHERE t.id = template_id AND t.workspace_id = $1)
       ) AS template_version, list_id, sender, reply_to,
       list_unsubscribe, rate_per_s, state, created_at, first_started_at, finished_at, recipients,
       planned, topic_id, track_opens, track_clicks, utm, send_at, local_time, segment_id
FROM campaign WHERE workspace_id = $1 AND id = $2;

-- name: page_campaigns
-- Newest first, ids below $2.
SELECT id, workspace_id, name, type, template_id,
       coalesce(template_version, (SELECT t.version FROM template t
                                   WHERE t.id = template_id AND t.workspace_id = $1)
       ) AS template_version, list_id, sender, reply_to,
       list_unsubscribe, rate_per_s, state, created_at, first_started_at, finished_at, recipients,
       planned, topic_id, track_opens, track_clicks, utm, send_at, local_time, segment_id
FROM campaign WHERE workspace_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: lock_campaign
-- The campaign's row for a change of its state: chunks that end look at it under a share lock.
SELECT state, list_id, planned, first_started_at, send_at FROM campaign
WHERE workspace_id = $1 AND id = $2 FOR UPDATE;

-- name: set_campaign_state
-- Writes the state that the table of states gave.
UPDATE campaign
SET state = $3,
    finished_at = CASE WHEN $3 IN ('finished', 'cancelled') THEN now() ELSE finished_at END
WHERE workspace_id = $1 AND id = $2;

-- name: pin_template
-- A campaign that names no version of its template renders to its end the one in use at its start.
UPDATE campaign SET template_version = t.version
FROM template t
WHERE campaign.workspace_id = $1 AND campaign.id = $2 AND campaign.state = 'draft'
  AND campaign.template_version IS NULL
  AND t.id = campaign.template_id AND t.workspace_id = $1;

-- name: start_campaign
-- The first start: its time is in all delivery ids, its instant decides who is a member. What a
-- segment means from now on is $3; how many it has is not known yet.
UPDATE campaign SET state = 'running', first_started_at = date_trunc('milliseconds', now()) + interval '1 millisecond',
       audience = $3,
       recipients = (SELECT count(*) FROM list_member m
                     WHERE m.workspace_id = $1 AND m.list_id = campaign.list_id)
WHERE workspace_id = $1 AND id = $2
RETURNING recipients;

-- name: read_template_version
-- Which version of an email's template: $3, or the one in use.
SELECT v.version
FROM template t JOIN template_version v ON v.template_id = t.id AND v.workspace_id = t.workspace_id
WHERE t.workspace_id = $1 AND t.id = $2 AND t.kind = 'email'
  AND v.version = coalesce($3::integer, t.version);

-- name: has_list
-- Whether the list is the workspace's.
SELECT true FROM contact_list WHERE workspace_id = $1 AND id = $2;

-- name: has_topic
-- Whether the topic is the workspace's.
SELECT true FROM topic WHERE workspace_id = $1 AND id = $2;

-- name: sample_members
-- Some members of a list, to try a template on.
SELECT c.address, c.name, c.attributes::text
FROM list_member m JOIN contact c ON c.id = m.contact_id AND c.workspace_id = m.workspace_id
WHERE m.workspace_id = $1 AND m.list_id = $2 ORDER BY m.contact_id LIMIT $3;

-- name: read_open_chunks
-- The chunks that may be without a job of their own: those that wait, and those that run, whose job
-- may have been buried. Where the job lives, its unique key keeps a second one away.
SELECT number, due_at FROM campaign_chunk
WHERE workspace_id = $1 AND campaign_id = $2 AND state <> 'finished' ORDER BY number;

-- name: plan_state
-- What the planner goes on from; locks the campaign, so that chunks are cut once.
SELECT state, list_id, audience, first_started_at, planned_upto, planned, rate_per_s, local_time,
       (SELECT count(*) FROM campaign_chunk k
        WHERE k.campaign_id = campaign.id AND k.state <> 'finished') AS open_chunks,
       (SELECT coalesce(max(number), 0) FROM campaign_chunk k
        WHERE k.campaign_id = campaign.id) AS last_number
FROM campaign WHERE workspace_id = $1 AND id = $2 FOR UPDATE;

-- name: cut_chunks
-- Cuts the next $4 members behind $3 into chunks of $5, numbered from $6 + 1. Members that came
-- after the first start $7 are left out. Returns the chunks' numbers and last contacts.
WITH member AS (
    SELECT contact_id, row_number() OVER (ORDER BY contact_id) - 1 AS place
    FROM (SELECT contact_id FROM list_member
          WHERE workspace_id = $1 AND list_id = $8 AND contact_id > $3 AND added_at <= $7
          ORDER BY contact_id LIMIT $4) AS next
), piece AS (
    SELECT place / $5 AS piece, max(contact_id::text)::uuid AS last_contact, count(*) AS size
    FROM member GROUP BY place / $5
), bounded AS (
    SELECT piece, lag(last_contact, 1, $3) OVER (ORDER BY piece) AS after_contact, last_contact, size
    FROM piece
)
INSERT INTO campaign_chunk (campaign_id, number, workspace_id, after_contact, last_contact, size,
                            state)
SELECT $2, $6 + 1 + piece, $1, after_contact, last_contact, size, 'waiting' FROM bounded
RETURNING number, last_contact, size;

-- name: cut_member_chunks
-- Makes chunks of $5 of the contacts $4, which are in order behind $3, numbered from $6 + 1. They
-- are kept in the chunk: whoever was cut into it stays in it, whatever changes about him.
WITH member AS (
    SELECT contact_id, (place - 1) / $5 AS piece
    FROM unnest($4::uuid[]) WITH ORDINALITY AS given (contact_id, place)
), piece AS (
    SELECT piece, array_agg(contact_id ORDER BY contact_id) AS members
    FROM member GROUP BY piece
), bounded AS (
    SELECT piece, members, members[cardinality(members)] AS last_contact,
           lag(members[cardinality(members)], 1, $3) OVER (ORDER BY piece) AS after_contact
    FROM piece
)
INSERT INTO campaign_chunk (campaign_id, number, workspace_id, after_contact, last_contact, size,
                            state, members)
SELECT $2, $6 + 1 + piece, $1, after_contact, last_contact, cardinality(members), 'waiting', members
FROM bounded
RETURNING number, last_contact, size;

-- name: read_audience
-- The filter that a started campaign goes by, if it is to a segment.
SELECT audience, planned FROM campaign WHERE workspace_id = $1 AND id = $2;

-- name: expect_recipients
-- How many a segment has, about, until its chunks are cut and counted.
UPDATE campaign SET recipients = $3 WHERE workspace_id = $1 AND id = $2 AND NOT planned;

-- name: set_planned
-- How far the chunks reach, and whether that is all.
UPDATE campaign
SET planned_upto = $3, planned = $4,
    recipients = CASE WHEN $4 THEN (SELECT coalesce(sum(k.size), 0) FROM campaign_chunk k
                                    WHERE k.campaign_id = $2) ELSE recipients END
WHERE workspace_id = $1 AND id = $2;

-- name: claim_chunk
-- Takes a chunk over under the token $4; no row when it is finished or a newer lease has it.
UPDATE campaign_chunk k SET fence = $4, state = 'running'
FROM campaign c
WHERE k.workspace_id = $1 AND k.campaign_id = $2 AND k.number = $3 AND k.fence < $4
  AND k.state <> 'finished' AND c.id = k.campaign_id AND c.workspace_id = k.workspace_id
RETURNING k.after_contact, k.last_contact, k.named_upto, c.state, c.type, c.template_id,
          c.template_version, c.list_id, c.sender, c.reply_to, c.list_unsubscribe, c.rate_per_s,
          c.first_started_at, c.ids_by_chunk, c.topic_id, c.track_opens, c.track_clicks, c.utm,
          k.zone, k.due_at, k.members;

-- name: load_chunk
-- The recipients of a chunk, ($3, $4] of the list $2, with what merges into the mail. Whoever does
-- not want the topic $6 is told apart: it was refused, or not asked for where it has to be.
SELECT m.contact_id, c.address, c.name, c.attributes::text,
       EXISTS (SELECT FROM suppression s
               WHERE s.workspace_id = $1 AND s.address = c.address
                 AND s.stream IN ('all', 'campaign')) AS suppressed,
       $6::uuid IS NOT NULL AND NOT coalesce(
           (SELECT w.subscribed FROM contact_topic w
            WHERE w.workspace_id = $1 AND w.topic_id = $6 AND w.address = c.address),
           (SELECT NOT t.on_request FROM topic t WHERE t.workspace_id = $1 AND t.id = $6),
           false) AS unwanted
FROM list_member m JOIN contact c ON c.id = m.contact_id AND c.workspace_id = m.workspace_id
WHERE m.workspace_id = $1 AND m.list_id = $2 AND m.contact_id > $3 AND m.contact_id <= $4
  AND m.added_at <= $5
ORDER BY m.contact_id;

-- name: step_chunk
-- One step of the hand-off window, fenced: inserts the rows of finished recipients, each with the
-- number of its result among those of $11 and on (most have the same), adds them to the chunk's
-- counts, and names the $18 who may leave next by moving `named_upto` to $5, unless the
-- campaign is not running. Who gets no mail has a row only if he is passed so. A row without a
-- transport was not handed over, or nobody knows to whom. No row: a newer lease has the chunk. Said
-- again after a commit whose answer got lost, it changes nothing.
WITH held AS MATERIALIZED (
    SELECT c.state FROM campaign_chunk k JOIN campaign c ON c.id = k.campaign_id
    WHERE k.workspace_id = $1 AND k.campaign_id = $2 AND k.number = $3 AND k.fence = $4
      AND k.state = 'running'
    FOR UPDATE OF k
), inserted AS (
    INSERT INTO delivery (id, workspace_id, campaign_id, contact_id, recipient, recipient_key, type,
                          state, attempts, fence, reply_code, reply, transport, handed_off_at,
                          next_attempt_at)
    SELECT r.id, $1, $2, r.contact_id, r.recipient, r.recipient_key, $16::text, o.state::delivery_state,
           CASE WHEN o.transport = '' AND o.state <> 'unknown' THEN 0 ELSE 1 END, $4, o.reply_code,
           o.reply, o.transport,
           CASE WHEN o.transport = '' AND o.state <> 'unknown' THEN NULL ELSE $17::timestamptz END,
           o.next_attempt_at
    FROM held, unnest($6::uuid[], $7::uuid[], $8::text[], $9::bigint[], $10::smallint[])
        AS r (id, contact_id, recipient, recipient_key, result)
    CROSS JOIN LATERAL (
        SELECT ($11::text[])[r.result], ($12::smallint[])[r.result], ($13::text[])[r.result],
               ($14::text[])[r.result], ($15::timestamptz[])[r.result]
    ) AS o (state, reply_code, reply, transport, next_attempt_at)
    WHERE held.state = 'running' OR o.state NOT IN ('suppressed', 'failed')
    ON CONFLICT (id) DO NOTHING
    RETURNING state
), counted AS (
    SELECT count(*) FILTER (WHERE state = 'accepted') AS accepted,
           count(*) FILTER (WHERE state = 'deferred') AS deferred,
           count(*) FILTER (WHERE state = 'bounced') AS bounced,
           count(*) FILTER (WHERE state = 'failed') AS failed,
           count(*) FILTER (WHERE state = 'suppressed') AS suppressed,
           count(*) FILTER (WHERE state = 'unknown') AS unknown
    FROM inserted
)
UPDATE campaign_chunk k
SET named_upto = CASE WHEN held.state = 'running' THEN coalesce($5, k.named_upto)
                      ELSE k.named_upto END,
    named = k.named + CASE WHEN held.state = 'running' AND $5 IS NOT NULL
                                AND k.named_upto IS DISTINCT FROM $5 THEN $18 ELSE 0 END,
    accepted = k.accepted + n.accepted, deferred = k.deferred + n.deferred,
    bounced = k.bounced + n.bounced, failed = k.failed + n.failed,
    suppressed = k.suppressed + n.suppressed, unknown = k.unknown + n.unknown
FROM held, counted n
WHERE k.workspace_id = $1 AND k.campaign_id = $2 AND k.number = $3
RETURNING k.named_upto, held.state, n.accepted, n.deferred, n.bounced, n.failed, n.suppressed,
          n.unknown;

-- name: count_lost
-- Whoever was named and is in no count was deleted, or left the list, before his worker died: he may
-- have got the mail and nobody knows him any more. He is counted `unknown`, without a row.
UPDATE campaign_chunk k SET unknown = k.unknown + lost.lost
FROM (SELECT named - accepted - deferred - bounced - failed - suppressed - unknown - cancelled AS lost
      FROM campaign_chunk
      WHERE workspace_id = $1 AND campaign_id = $2 AND number = $3) AS lost
WHERE k.workspace_id = $1 AND k.campaign_id = $2 AND k.number = $3 AND k.fence = $4
  AND k.state = 'running' AND lost.lost > 0
RETURNING lost.lost;

-- name: find_deferred
-- Which of these deliveries wait for another attempt, ids in [$2, $3).
SELECT id, next_attempt_at FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND id = ANY ($4::uuid[]) AND state = 'deferred';

-- name: finish_chunk
-- Every recipient of the chunk has its row.
UPDATE campaign_chunk SET state = 'finished'
WHERE workspace_id = $1 AND campaign_id = $2 AND number = $3 AND fence = $4 AND state = 'running'
RETURNING true;

-- name: share_campaign
-- The campaign's state, held until commit: nobody resumes it meanwhile.
SELECT state FROM campaign WHERE workspace_id = $1 AND id = $2 FOR SHARE;

-- name: put_chunk_back
-- The chunk waits: it is paused, or lets others have their turn.
UPDATE campaign_chunk SET state = 'waiting'
WHERE workspace_id = $1 AND campaign_id = $2 AND number = $3 AND fence = $4 AND state = 'running'
RETURNING true;

-- name: finish_campaign
-- Ends a campaign whose chunks are all finished and of which nobody waits for another attempt.
UPDATE campaign SET state = 'finished', finished_at = now()
WHERE workspace_id = $1 AND id = $2 AND state = 'running' AND planned
  AND NOT EXISTS (SELECT FROM campaign_chunk k WHERE k.campaign_id = $2 AND k.state <> 'finished')
  AND NOT EXISTS (SELECT FROM campaign_chunk k WHERE k.campaign_id = $2 AND k.deferred > 0)
RETURNING true;

-- name: read_progress
-- A campaign's counts, and what was handed over since the minute before this one began.
SELECT c.state, c.recipients, c.planned, c.first_started_at, c.finished_at, now() AS now,
       k.*, b.*,
       (SELECT coalesce(sum(amount), 0)::bigint FROM (
            SELECT amount FROM counter r
            WHERE r.workspace_id = $1 AND r.subject = $2 AND r.name = 'campaign.handed_off'
              AND r.minute >= date_trunc('minute', now()) - interval '1 minute'
            UNION ALL
            SELECT amount FROM counter_delta d
            WHERE d.workspace_id = $1 AND d.subject = $2 AND d.name = 'campaign.handed_off'
              AND d.minute >= date_trunc('minute', now()) - interval '1 minute') recent) AS recent
FROM campaign c,
     (SELECT coalesce(sum(accepted), 0)::bigint AS accepted,
             coalesce(sum(deferred), 0)::bigint AS deferred,
             coalesce(sum(bounced), 0)::bigint AS bounced,
             coalesce(sum(failed), 0)::bigint AS failed,
             coalesce(sum(suppressed), 0)::bigint AS suppressed,
             coalesce(sum(unknown), 0)::bigint AS unknown,
             coalesce(sum(cancelled), 0)::bigint AS cancelled
      FROM campaign_chunk WHERE workspace_id = $1 AND campaign_id = $2) k,
     (SELECT coalesce(sum(r.delivered), 0)::bigint AS came_delivered,
             coalesce(sum(r.bounced), 0)::bigint AS came_bounced,
             coalesce(sum(r.complained), 0)::bigint AS came_complained
      FROM campaign_result r WHERE r.workspace_id = $1 AND r.campaign_id = $2) b
WHERE c.workspace_id = $1 AND c.id = $2;

-- name: load_retries
-- Deferred recipients with what merges into their mail, and those whose retry was cut short. The
-- deferred are fenced by $5 from now on, so that a worker that lost its lease names none of them.
-- What the row says of the attempt before, which the next one overwrites, is kept as an event.
WITH found AS MATERIALIZED (
    SELECT id, contact_id, recipient, state, attempts, reply_code, reply, transport, updated_at
    FROM delivery
    WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND id = ANY ($4::uuid[])
      AND state IN ('deferred', 'handed_off') AND fence < $5
    FOR UPDATE
), claimed AS (
    UPDATE delivery SET fence = $5 FROM found
    WHERE delivery.workspace_id = $1 AND delivery.id >= $2 AND delivery.id < $3
      AND delivery.id = found.id AND found.state = 'deferred'
), told AS (
    INSERT INTO delivery_event (delivery_id, seq, workspace_id, at, state, attempt, reply_code,
                                detail, transport)
    SELECT id, (SELECT coalesce(max(e.seq), 0) + 1 FROM delivery_event e
                WHERE e.delivery_id = found.id AND e.delivery_id >= $2 AND e.delivery_id < $3),
           $1, updated_at, 'deferred', attempts, reply_code, reply, transport
    FROM found
    WHERE state = 'deferred' AND attempts > 0
      AND NOT EXISTS (SELECT FROM delivery_event e
                      WHERE e.delivery_id = found.id AND e.delivery_id >= $2 AND e.delivery_id < $3
                        AND e.state = 'deferred' AND e.attempt = found.attempts
                        AND e.transport = found.transport)
)
SELECT d.id, d.contact_id, d.recipient, d.state::text, d.attempts,
       coalesce(c.name, '') AS name, coalesce(c.attributes::text, '{}') AS attributes,
       EXISTS (SELECT FROM suppression s
               WHERE s.workspace_id = $1 AND s.address = d.recipient
                 AND s.stream IN ('all', 'campaign')) AS suppressed,
       $6::uuid IS NOT NULL AND NOT coalesce(
           (SELECT w.subscribed FROM contact_topic w
            WHERE w.workspace_id = $1 AND w.topic_id = $6 AND w.address = lower(d.recipient)),
           (SELECT NOT t.on_request FROM topic t WHERE t.workspace_id = $1 AND t.id = $6),
           false) AS unwanted
FROM found d LEFT JOIN contact c ON c.id = d.contact_id AND c.workspace_id = $1
ORDER BY d.id;

-- name: move_counts
-- Recipients of a chunk left `deferred` (or were lost on the way) for another state.
UPDATE campaign_chunk
SET deferred = deferred - $4, accepted = accepted + $5, bounced = bounced + $6,
    failed = failed + $7, suppressed = suppressed + $8, unknown = unknown + $9,
    cancelled = cancelled + $10
WHERE workspace_id = $1 AND campaign_id = $2 AND number = $3;

-- name: read_campaign_mail
-- What the mail of a campaign is made of.
SELECT state, type, template_id, template_version, sender, reply_to, list_unsubscribe, rate_per_s,
       first_started_at, topic_id, track_opens, track_clicks, utm
FROM campaign WHERE workspace_id = $1 AND id = $2;
