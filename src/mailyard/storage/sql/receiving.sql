-- name: find_routes
-- The living inboxes behind the normalised addresses $1. Not by workspace: an address is what
-- decides whose mail it is. One index descent an address, in the one hash partition that can hold it.
-- The inner SELECT hides from the planner how many are asked for: or it would plan anew each time,
-- over all partitions, which costs it three times as much as the looking up. `room`: how many bytes
-- an inbox with a quota still takes, -1 when it is closed; null without.
SELECT route.address, route.workspace_id, route.inbox_id, route.retention_days, route.room,
       route.bytes_max
FROM unnest((SELECT $1::text[])) AS asked (address)
CROSS JOIN LATERAL (
    SELECT address.address, address.workspace_id, address.inbox_id,
           coalesce(address.mail_days, address.retention_days) AS retention_days,
           address.bytes_max,
           CASE WHEN address.closed_at IS NOT NULL THEN -1::bigint
                WHEN address.messages_used >= address.messages_max THEN 0::bigint
                WHEN address.bytes_max IS NOT NULL
                    THEN greatest(address.bytes_max - coalesce(address.bytes_used, 0), 0::bigint)
           END AS room
    FROM address
    WHERE address.address = asked.address
      AND (address.expires_at IS NULL OR address.expires_at > now())
    OFFSET 0
) AS route;

-- name: recount
-- What the living inboxes behind the addresses $1, whosever they are, hold by now: for those that
-- seemed full. The answer is as find_routes has it.
UPDATE address
SET messages_used = held.messages, bytes_used = held.size_bytes
FROM (
    SELECT own.address, count(line.message_id)::integer AS messages,
           coalesce(sum(line.size_bytes), 0)::bigint AS size_bytes
    FROM address AS own
    JOIN inbox ON inbox.id = own.inbox_id AND inbox.retention_days = own.retention_days
    LEFT JOIN inbox_message AS line
      ON line.workspace_id = own.workspace_id AND line.inbox_id = own.inbox_id
     AND line.retention_days = own.retention_days
     AND (line.deleted_at IS NULL OR line.deleted_at > now())
     AND (inbox.message_ttl_s IS NULL
          OR line.message_id >= lowest_id_at(now() - make_interval(secs => inbox.message_ttl_s)))
    WHERE own.address = ANY($1::text[])
    GROUP BY own.address
) AS held
WHERE address.address = held.address
RETURNING address.address, address.workspace_id, address.inbox_id,
          coalesce(address.mail_days, address.retention_days) AS retention_days,
          CASE WHEN address.closed_at IS NOT NULL THEN -1::bigint
               WHEN address.messages_used >= address.messages_max THEN 0::bigint
               WHEN address.bytes_max IS NOT NULL
                   THEN greatest(address.bytes_max - address.bytes_used, 0::bigint)
          END AS room,
          address.bytes_max;

-- name: delete_unfiled
-- Deletes the messages $2 of workspace $1 that came for inboxes which are gone, and so have no line.
-- $3 and $4 are the lowest and highest of $2.
DELETE FROM message
WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id BETWEEN $3 AND $4
  AND NOT EXISTS (
      SELECT FROM unnest(message.inbox_ids) AS place (inbox_id)
      JOIN inbox_message
        ON inbox_message.inbox_id = place.inbox_id AND inbox_message.message_id = message.id
      WHERE inbox_message.workspace_id = $1 AND inbox_message.message_id BETWEEN $3 AND $4
  )
  AND NOT EXISTS (
      SELECT FROM unnest(message.inbox_ids) AS place (inbox_id)
      JOIN held_message
        ON held_message.inbox_id = place.inbox_id AND held_message.message_id = message.id
      WHERE held_message.workspace_id = $1
  );

-- name: find_stored
-- Which of the messages $1 are stored, whosever they are: asked by the accepting process about its
-- own ids, after a commit whose answer was lost. $2 and $3 are the lowest and highest of $1.
SELECT id
FROM message
WHERE id = ANY($1::uuid[]) AND id BETWEEN $2 AND $3;

-- name: load_messages
-- The messages $2 of the workspaces $1 in the retention class $5, with their bytes. $3 and $4 are
-- the lowest and highest of $2, so that only the partitions of those times are looked at.
SELECT id, workspace_id, retention_days, recipients, inbox_ids, size_bytes, filed_under, raw,
       reverse_path, helo, peer, blob
FROM message
WHERE workspace_id = ANY($1::uuid[])
  AND id = ANY($2::uuid[]) AND id BETWEEN $3 AND $4
  AND retention_days = $5;

-- name: hold_classes
-- Until the end of the transaction no inbox of the workspaces $1 moves to a longer class.
SELECT pg_advisory_xact_lock_shared(7101, hashtext(workspace_id::text))
FROM unnest($1::uuid[]) AS held (workspace_id)
ORDER BY workspace_id;

-- name: move_messages
-- Puts the messages $2 of workspace $1 into the longer class $3, whatever shorter one they are in.
-- $4 and $5 are the lowest and highest of $2.
UPDATE message
SET retention_days = $3::smallint
WHERE workspace_id = $1
  AND id = ANY($2::uuid[]) AND id BETWEEN $4 AND $5
  AND retention_days <> $3::smallint AND retention_days <> 0
  AND ($3::smallint = 0 OR retention_days < $3::smallint);

-- part: lines
-- Lines for messages in their inboxes, where these still are what the messages were accepted for:
-- inboxes $1, messages $2, workspaces $3, the messages' classes $4, addresses $5, and what the lists
-- show ($6 to $13); $14: the inboxes' own addresses. Of a message with an inbox in a longer class the lines say so. As in find_routes
-- the inner SELECT hides how many there are.
asked AS MATERIALIZED (
    SELECT line.*, route.retention_days, route.mail_days, route.counts
    FROM unnest(
        (SELECT $1::uuid[]), $2::uuid[], $3::uuid[], $4::smallint[], $5::text[], $6::text[],
        $7::text[], $8::text[], $9::text[], $10::timestamptz[], $11::text[], $12::integer[],
        $13::smallint[], $14::text[]
    ) WITH ORDINALITY AS line (
        inbox_id, message_id, workspace_id, own_class, recipient, from_address,
        from_name, subject, preview, sent_at, header_message_id, size_bytes,
        attachments, filed_under, nth
    )
    LEFT JOIN LATERAL (
        SELECT address.retention_days,
               coalesce(address.mail_days, address.retention_days) AS mail_days,
               address.one_time OR address.messages_max IS NOT NULL
                   OR address.bytes_max IS NOT NULL AS counts
        FROM address
        WHERE address.address = line.filed_under AND address.inbox_id = line.inbox_id
          AND (address.expires_at IS NULL OR address.expires_at > now())
        OFFSET 0
    ) AS route ON true
),
outgrown AS MATERIALIZED (
    SELECT message_id, CASE WHEN min(mail_days) = 0 THEN 0 ELSE max(mail_days) END AS class
    FROM asked
    WHERE own_class <> 0 AND (mail_days = 0 OR mail_days > own_class)
    GROUP BY message_id
),
written AS (
    INSERT INTO inbox_message (
        inbox_id, message_id, workspace_id, retention_days, message_retention_days, recipient,
        from_address, from_name, subject, preview, sent_at, header_message_id, size_bytes,
        attachments
    )
    SELECT inbox_id, message_id, workspace_id, retention_days, coalesce(class, own_class), recipient,
           from_address, from_name, subject, preview, sent_at, header_message_id, size_bytes,
           attachments
    FROM asked LEFT JOIN outgrown USING (message_id)
    WHERE retention_days IS NOT NULL

-- part: lines_written
-- What came in is counted, for inboxes with a quota too, and closes those that are for one mail. The
-- answer: the class of each line's inbox, null where it has none any more
-- and the line was not written (`homes`), which of the lines stood already (`stood`, counted from 1),
-- and which messages the caller is to move into which class.
counted AS (
    INSERT INTO counter_delta (workspace_id, name, subject, minute, amount)
    SELECT workspace_id, 'received', workspace_id, date_trunc('minute', now()), count(*)
    FROM asked
    WHERE retention_days IS NOT NULL
    GROUP BY workspace_id
),
used AS (
    UPDATE address
    SET messages_used = coalesce(messages_used, 0) + came.messages,
        bytes_used = coalesce(bytes_used, 0) + came.size_bytes,
        closed_at = CASE WHEN address.one_time THEN coalesce(closed_at, now()) ELSE closed_at END
    FROM (
        SELECT workspace_id, filed_under, inbox_id, count(*) AS messages, sum(size_bytes) AS size_bytes
        FROM asked
        WHERE counts
        GROUP BY workspace_id, filed_under, inbox_id
    ) AS came
    WHERE address.workspace_id = came.workspace_id AND address.address = came.filed_under
      AND address.inbox_id = came.inbox_id
)
SELECT ARRAY(SELECT retention_days FROM asked ORDER BY nth) AS homes,
       ARRAY(SELECT message_id FROM outgrown ORDER BY message_id) AS outgrown,
       ARRAY(SELECT class FROM outgrown ORDER BY message_id) AS classes,

-- name: write_lines
-- A line for each message in each of its inboxes; a message of the workspaces $3 whose line stands
-- already is refused with its group.
WITH
-- use: lines
),
-- use: lines_written
       '{}'::bigint[] AS stood;

-- name: write_new_lines
-- As write_lines, but a line of the workspaces $3 that stands already stays as it is.
WITH
-- use: lines
    ON CONFLICT DO NOTHING
    RETURNING inbox_id, message_id
),
-- use: lines_written
       ARRAY(
           SELECT nth
           FROM asked LEFT JOIN written USING (inbox_id, message_id)
           WHERE asked.retention_days IS NOT NULL AND written.message_id IS NULL
       ) AS stood;
