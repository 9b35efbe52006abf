-- When campaigns go, and to whom not.

-- name: next_members
-- The next $4 members behind $3 of the list $2, with their time zones. Members that came after the
-- first start $5 are left out.
SELECT m.contact_id, coalesce(c.attributes ->> 'timezone', '') AS zone
FROM list_member m
LEFT JOIN contact c ON c.id = m.contact_id AND c.workspace_id = m.workspace_id
WHERE m.workspace_id = $1 AND m.list_id = $2 AND m.contact_id > $3 AND m.added_at <= $5
ORDER BY m.contact_id LIMIT $4;

-- name: insert_placed_chunks
-- Chunks of one zone each: $3 their numbers, $4 zones, $5 when they are due; $6 and $7: each
-- contact with his chunk's number. All lie behind $8.
INSERT INTO campaign_chunk (campaign_id, number, workspace_id, after_contact, last_contact, size,
                            state, zone, due_at, members)
SELECT $2, chunk.number, $1, $8, max(one.contact_id::text)::uuid, count(*), 'waiting', chunk.zone,
       chunk.due_at, array_agg(one.contact_id ORDER BY one.contact_id)
FROM unnest($3::integer[], $4::text[], $5::timestamptz[]) AS chunk (number, zone, due_at)
JOIN unnest($6::uuid[], $7::integer[]) AS one (contact_id, number) USING (number)
GROUP BY chunk.number, chunk.zone, chunk.due_at;

-- name: load_placed_chunk
-- As `load_chunk`, for a chunk that knows its contacts ($7), of a list or of a segment (no list).
SELECT m.contact_id, c.address, c.name, c.attributes::text,
       EXISTS (SELECT FROM suppression s
               WHERE s.workspace_id = $1 AND s.address = c.address
                 AND s.stream IN ('all', 'campaign')) AS suppressed,
       $6::uuid IS NOT NULL AND NOT coalesce(
           (SELECT w.subscribed FROM contact_topic w
            WHERE w.workspace_id = $1 AND w.topic_id = $6 AND w.address = c.address),
           (SELECT NOT t.on_request FROM topic t WHERE t.workspace_id = $1 AND t.id = $6),
           false) AS unwanted
FROM unnest($7::uuid[]) AS m (contact_id)
JOIN contact c ON c.id = m.contact_id AND c.workspace_id = $1
WHERE m.contact_id > $3 AND m.contact_id <= $4
  AND ($2::uuid IS NULL
       OR EXISTS (SELECT FROM list_member l
                  WHERE l.workspace_id = $1 AND l.list_id = $2 AND l.contact_id = m.contact_id
                    AND l.added_at <= $5))
ORDER BY m.contact_id;

-- name: hold_turns
-- One at a time decides about the contacts of a workspace; until commit.
SELECT pg_advisory_xact_lock(hashtextextended('campaign-turn:' || $1::uuid, 0));

-- name: take_turns
-- Of the contacts $3 (with the keys $4 of their addresses) those who have had $5 other campaigns
-- since $6, or are about to; whoever has not is noted as about to get campaign $2. A delivery of that
-- time has an id from $7 on.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($3::uuid[], $4::bigint[]) AS a (contact_id, recipient_key)
), had AS (
    SELECT contact_id, count(DISTINCT campaign_id) AS campaigns
    FROM (
        SELECT t.contact_id, t.campaign_id
        FROM asked JOIN campaign_turn t ON t.workspace_id = $1 AND t.contact_id = asked.contact_id
        WHERE t.campaign_id <> $2 AND t.at > $6
        UNION ALL
        SELECT d.contact_id, d.campaign_id
        FROM asked JOIN delivery d ON d.workspace_id = $1 AND d.recipient_key = asked.recipient_key
        WHERE d.id >= $7 AND d.contact_id = asked.contact_id AND d.campaign_id IS NOT NULL
          AND d.campaign_id <> $2 AND d.handed_off_at > $6
    ) AS seen
    GROUP BY contact_id
), over AS (
    SELECT a.contact_id FROM asked a JOIN had USING (contact_id)
    WHERE had.campaigns >= $5
      AND NOT EXISTS (SELECT FROM campaign_turn t
                      WHERE t.workspace_id = $1 AND t.contact_id = a.contact_id
                        AND t.campaign_id = $2)
), noted AS (
    INSERT INTO campaign_turn (workspace_id, contact_id, campaign_id, at)
    SELECT $1, a.contact_id, $2, $8 FROM asked a
    WHERE NOT EXISTS (SELECT FROM over WHERE over.contact_id = a.contact_id)
    ON CONFLICT DO NOTHING
)
SELECT contact_id FROM over;

-- name: sweep_turns
-- Forgets turns, of all workspaces, whose deliveries have their rows since long.
DELETE FROM campaign_turn WHERE at < $1;

-- name: draw_chunk
-- Notes that so many more of a chunk were drawn of the quota; no row: another lease has it.
UPDATE campaign_chunk SET drawn = drawn + $5
WHERE workspace_id = $1 AND campaign_id = $2 AND number = $3 AND fence = $4 AND state = 'running'
RETURNING true;

-- name: drawn_of_chunk
-- What was drawn of the quota for a chunk, and how much of that was used.
SELECT drawn, named - suppressed - failed AS used FROM campaign_chunk
WHERE workspace_id = $1 AND campaign_id = $2 AND number = $3;
