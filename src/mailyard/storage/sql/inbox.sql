-- part: columns
id, retention_days, address, name, labels, expires_at, message_ttl_s, one_time, messages_max, bytes_max

-- name: create
-- Makes the inboxes $2 (ids) of workspace $1 with the addresses $3, classes $4, expiries $5, names
-- $6, labels $7 (JSON arrays), lives of their mail $8 (seconds) and its classes $9, for one mail $10,
-- most messages $11 and bytes $12, own domains $13; and answers with the addresses that were free. An
-- address whose inbox has expired is free; one that is taken, or held for another workspace, makes no
-- inbox.
WITH wanted AS (
    SELECT *
    FROM unnest(
        $2::uuid[], $3::text[], $4::smallint[], $5::timestamptz[], $6::text[], $7::text[],
        $8::double precision[], $9::smallint[], $10::boolean[], $11::integer[], $12::bigint[],
        $13::uuid[]
    ) AS wanted (
        id, address, retention_days, expires_at, name, labels, message_ttl_s, mail_days, one_time,
        messages_max, bytes_max, domain_id
    )
), taken AS (
    INSERT INTO address (
        address, workspace_id, inbox_id, retention_days, expires_at, domain_id, mail_days, one_time,
        messages_max, bytes_max
    )
    SELECT address, $1, id, retention_days, expires_at, domain_id, mail_days, nullif(one_time, false),
           messages_max, bytes_max
    FROM wanted
    WHERE NOT EXISTS (
        SELECT FROM reserved_address AS held
        WHERE held.address = wanted.address AND held.workspace_id <> $1
    )
    ORDER BY address
    ON CONFLICT (address) DO UPDATE
    SET workspace_id = EXCLUDED.workspace_id, inbox_id = EXCLUDED.inbox_id,
        retention_days = EXCLUDED.retention_days, expires_at = EXCLUDED.expires_at,
        domain_id = EXCLUDED.domain_id, mail_days = EXCLUDED.mail_days,
        one_time = EXCLUDED.one_time, closed_at = NULL, messages_max = EXCLUDED.messages_max,
        bytes_max = EXCLUDED.bytes_max, messages_used = NULL, bytes_used = NULL,
        on_forged = 0
    WHERE address.expires_at <= now()
    RETURNING inbox_id
)
INSERT INTO inbox (
    id, workspace_id, retention_days, address, name, labels, expires_at, message_ttl_s, one_time,
    messages_max, bytes_max
)
SELECT id, $1, retention_days, address, name,
       ARRAY(SELECT jsonb_array_elements_text(labels::jsonb)), expires_at, message_ttl_s, one_time,
       messages_max, bytes_max
FROM wanted
WHERE id IN (SELECT inbox_id FROM taken)
RETURNING address;

-- name: get
-- The living inbox $2 of workspace $1.
SELECT
-- use: columns
FROM inbox
WHERE workspace_id = $1 AND id = $2
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: find
-- The living inbox of workspace $1 behind the normalised address $2.
SELECT inbox.id, inbox.retention_days, inbox.address, inbox.name, inbox.labels, inbox.expires_at,
       inbox.message_ttl_s, inbox.one_time, inbox.messages_max, inbox.bytes_max
FROM address
JOIN inbox ON inbox.id = address.inbox_id AND inbox.retention_days = address.retention_days
WHERE address.workspace_id = $1 AND address.address = $2 AND inbox.workspace_id = $1
  AND inbox.deleted_at IS NULL AND (inbox.expires_at IS NULL OR inbox.expires_at > now());

-- name: list
-- The living inboxes of workspace $1 before the id $2, newest first, up to $3; with the label $4
-- unless that is empty.
SELECT
-- use: columns
FROM inbox
WHERE workspace_id = $1 AND id < $2
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
  AND ($4::text = '' OR $4 = ANY(labels))
ORDER BY id DESC
LIMIT $3;

-- name: relabel
-- Sets the name $3 and the labels $4 of the living inbox $2 of workspace $1; null leaves as it is.
UPDATE inbox
SET name = coalesce($3, name), labels = coalesce($4::text[], labels)
WHERE workspace_id = $1 AND id = $2
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
RETURNING
-- use: columns
;

-- name: hold_classes_alone
-- Until the end of the transaction nobody else moves inboxes of workspace $1 between classes, and
-- no mail is put into them (receiving.hold_classes).
SELECT pg_advisory_xact_lock(7101, hashtext($1::uuid::text));

-- name: extend
-- The living inbox $2 of workspace $1 expires at $3 and lies in class $4.
UPDATE inbox
SET expires_at = $3, retention_days = $4
WHERE workspace_id = $1 AND id = $2
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
RETURNING
-- use: columns
;

-- name: extend_address
-- The address $3 of inbox $2 in workspace $1 expires at $4 and its lines go to class $5, its messages
-- to class $6 where that is not null. No row: the address is another inbox's by now.
UPDATE address
SET expires_at = $4, retention_days = $5, mail_days = $6
WHERE workspace_id = $1 AND address = $3 AND inbox_id = $2
RETURNING true;

-- name: move_lines
-- Moves the lines of inbox $2 of workspace $1 from class $3 to the longer class $4, and says which
-- messages must be at least as long as class $5.
UPDATE inbox_message
SET retention_days = $4::smallint,
    message_retention_days =
        CASE WHEN $5::smallint = 0 OR message_retention_days <> 0 AND message_retention_days < $5::smallint
             THEN $5::smallint ELSE message_retention_days END
WHERE workspace_id = $1 AND inbox_id = $2 AND retention_days = $3::smallint
RETURNING message_id;

-- name: limit
-- Sets of the living inbox $2 of workspace $1 the life of its mail $3 (seconds), the most messages $4
-- and bytes $5.
UPDATE inbox
SET message_ttl_s = $3, messages_max = $4, bytes_max = $5
WHERE workspace_id = $1 AND id = $2
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
RETURNING
-- use: columns
;

-- name: limit_address
-- The same for the address $3 of inbox $2 in workspace $1: its messages' class $4, the most messages
-- $5 and bytes $6. It counts as full, and so is counted anew when its next mail comes.
UPDATE address
SET mail_days = $4, messages_max = $5, bytes_max = $6,
    messages_used = $5, bytes_used = $6
WHERE workspace_id = $1 AND address = $3 AND inbox_id = $2;

-- name: own_domains
-- Those of the domains $2 that workspace $1 has proved to be its own.
SELECT id, name FROM receiving_domain
WHERE workspace_id = $1 AND name = ANY($2::text[]) AND proved_at IS NOT NULL;

-- name: follow_messages
-- The other inboxes' lines of the messages $2 of workspace $1 find them in the longer class $3.
UPDATE inbox_message
SET message_retention_days = $3::smallint
FROM (
    SELECT DISTINCT message.id, inbox_id
    FROM message, unnest(message.inbox_ids) AS inbox_id
    WHERE message.workspace_id = $1 AND message.id = ANY($2::uuid[])
      AND message.id BETWEEN $4 AND $5
      AND cardinality(message.inbox_ids) > 1
) AS place
WHERE inbox_message.workspace_id = $1
  AND inbox_message.inbox_id = place.inbox_id AND inbox_message.message_id = place.id
  AND inbox_message.message_id BETWEEN $4 AND $5
  AND message_retention_days <> $3::smallint AND message_retention_days <> 0
  AND ($3::smallint = 0 OR message_retention_days < $3::smallint);

-- name: delete
-- Deletes the living inboxes among $2 of workspace $1, lets go of their addresses, and answers with
-- those that were there.
WITH gone AS (
    UPDATE inbox
    SET deleted_at = now()
    WHERE workspace_id = $1 AND id = ANY($2::uuid[])
      AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    RETURNING
-- use: columns

), freed AS (
    DELETE FROM address
    USING gone
    WHERE address.workspace_id = $1 AND address.address = gone.address
      AND address.inbox_id = gone.id
)
SELECT
-- use: columns
FROM gone;
