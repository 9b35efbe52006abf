-- name: load
-- The messages $2 of workspace $1, of retention classes $3, with the first $6 bytes of each. $4 and $5
-- are the lowest and highest of $2.
SELECT id, inbox_ids, substring(raw FROM 1 FOR $6::integer) AS raw, blob
FROM message
WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id BETWEEN $4 AND $5
  AND retention_days = ANY($3::smallint[]);

-- name: index
-- Indexes documents of workspace $1 in every inbox that shows them: messages $2, languages $3, subjects
-- $4, texts $5, tokens $6 (a line each), parts $7; $8 and $9 are the lowest and highest of $2. The
-- caller holds the classes. The answer: the languages, and how many lines were written.
WITH doc AS MATERIALIZED (
    SELECT message_id, language, tokens,
           to_tsvector(language::regconfig, subject) AS subject,
           to_tsvector(language::regconfig, text) AS text,
           parts::tsvector AS parts
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
        AS doc (message_id, language, subject, text, tokens, parts)
), line AS MATERIALIZED (
    SELECT line.inbox_id, line.message_id, line.retention_days, line.size_bytes
    FROM message
    CROSS JOIN LATERAL unnest(message.inbox_ids) AS place (inbox_id)
    JOIN inbox_message AS line
      ON line.inbox_id = place.inbox_id AND line.message_id = message.id
    WHERE message.workspace_id = $1 AND message.id = ANY($2::uuid[]) AND message.id BETWEEN $8 AND $9
      AND line.workspace_id = $1 AND line.message_id BETWEEN $8 AND $9
      AND (line.deleted_at IS NULL OR line.deleted_at > now())
), written AS (
    INSERT INTO search_line (
        inbox_id, message_id, retention_days, workspace_id, size_bytes, language, words, parts
    )
    SELECT line.inbox_id, line.message_id, line.retention_days, $1, line.size_bytes, doc.language,
           setweight(doc.subject, 'A') || doc.text || array_to_tsvector(
               string_to_array(doc.tokens, E'\n')
               || ARRAY(SELECT 's=' || lexeme FROM unnest(tsvector_to_array(doc.subject)) AS lexeme)
               || ARRAY['c=' || doc.language, 'i=' || line.inbox_id, 'w=' || $1::uuid]
           ),
           doc.parts
    FROM doc JOIN line USING (message_id)
    ON CONFLICT DO NOTHING
    RETURNING language
), spoken AS (
    INSERT INTO search_language (workspace_id, language)
    SELECT DISTINCT $1::uuid, language FROM written
    ORDER BY language
    ON CONFLICT DO NOTHING
)
SELECT count(*) AS lines FROM written;

-- name: page
-- Messages of workspace $1 below the id $2, newest first, up to $3.
SELECT id, retention_days, size_bytes
FROM message
WHERE workspace_id = $1 AND id < $2
ORDER BY id DESC
LIMIT $3;

-- name: forget
-- The index of messages $2 of workspace $1 is to be made again; $3 and $4 are their lowest and highest.
DELETE FROM search_line
WHERE workspace_id = $1 AND message_id = ANY($2::uuid[]) AND message_id BETWEEN $3 AND $4;

-- name: forget_vectors
-- In the same way.
DELETE FROM search_vector
WHERE workspace_id = $1 AND message_id = ANY($2::uuid[]) AND message_id BETWEEN $3 AND $4;

-- name: setting
-- How the mail of workspace $1 is indexed, and whether inboxes say for themselves what is found by
-- meaning.
SELECT language, every_word, by_meaning, inboxes FROM search_setting WHERE workspace_id = $1;

-- name: set
-- The mail of workspace $1 is indexed in the language $2, parts of every word $3, by meaning too $4.
INSERT INTO search_setting (workspace_id, language, every_word, by_meaning) VALUES ($1, $2, $3, $4)
ON CONFLICT (workspace_id) DO UPDATE
SET language = excluded.language, every_word = excluded.every_word,
    by_meaning = excluded.by_meaning;

-- name: get_inbox
-- What the living inbox $2 of workspace $1 says of search by meaning.
SELECT by_meaning FROM inbox
WHERE workspace_id = $1 AND id = $2
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now());

-- name: set_inbox
-- The living inbox $2 of workspace $1 says $3 of it.
UPDATE inbox SET by_meaning = $3
WHERE workspace_id = $1 AND id = $2
  AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
RETURNING id;

-- name: note_inboxes
-- Workspace $1 has an inbox that says for itself; its language is $2 where it has said nothing yet.
INSERT INTO search_setting (workspace_id, language, every_word, inboxes) VALUES ($1, $2, false, true)
ON CONFLICT (workspace_id) DO UPDATE SET inboxes = true;

-- name: any_inbox
-- Whether any living inbox of workspace $1 is found by meaning on its own account.
SELECT EXISTS (
    SELECT FROM inbox
    WHERE workspace_id = $1 AND by_meaning
      AND deleted_at IS NULL AND (expires_at IS NULL OR expires_at > now())
);

-- name: meant
-- Those of the messages $2 of workspace $1 that lie in an inbox whose mail is found by meaning; $5 is
-- what holds for those that say nothing, $3 and $4 are the lowest and highest of $2.
SELECT message.id
FROM message
WHERE workspace_id = $1 AND id = ANY($2::uuid[]) AND id BETWEEN $3 AND $4
  AND EXISTS (
      SELECT FROM unnest(message.inbox_ids) AS place (inbox_id)
      JOIN inbox ON inbox.id = place.inbox_id
      WHERE inbox.workspace_id = $1 AND coalesce(inbox.by_meaning, $5::boolean)
  );

-- name: languages
-- The languages of the mail of workspace $1.
SELECT language FROM search_language WHERE workspace_id = $1 ORDER BY language;

-- name: lexize
-- What each text of $2 is in each of the languages $1: lexemes behind one another, as a tsquery. The
-- texts are a search's own, of whichever workspace.
SELECT language, nth::integer AS nth, phraseto_tsquery(language::regconfig, text)::text AS lexemes
FROM unnest($1::text[]) AS language
CROSS JOIN unnest($2::text[]) WITH ORDINALITY AS asked (text, nth);

-- name: by_index
-- In this transaction the index of words decides. PostgreSQL takes a row's words for as cheap to look
-- at as its ids, and would rather read all of them; and it would start processes for a few thousand.
SELECT set_config('enable_seqscan', 'off', true), set_config('work_mem', '32MB', true),
       set_config('max_parallel_workers_per_gather', '0', true);

-- name: in_inbox_found
-- As in_inbox, of lines that the index of words has found there: no other index is to be thought of.
(s.inbox_id = $2) IS TRUE AND s.retention_days = $3;

-- name: in_workspace_found
-- As in_workspace, in the same way.
$2::uuid IS NULL AND $3::smallint IS NULL;

-- name: in_inbox
-- Of workspace $1 what lies in inbox $2 of class $3, by the inbox's own order.
s.inbox_id = $2 AND s.retention_days = $3;

-- name: in_workspace
-- All of workspace $1.
s.workspace_id = $1 AND $2::uuid IS NULL AND $3::smallint IS NULL;

-- name: in_inbox_marked
-- As in_inbox, of rows of line_state.
state.inbox_id = $2 AND state.retention_days = $3;

-- name: in_workspace_marked
-- As in_workspace, in the same way.
state.workspace_id = $1 AND $2::uuid IS NULL AND $3::smallint IS NULL;

-- name: reach_in_inbox
-- Of the lines of inbox $2 of class $3 in workspace $1 with ids in [$4, $5) the newest, and the one $6
-- behind it; null where there are none. Read from an index alone.
SELECT (
    SELECT s.message_id FROM search_line AS s
    WHERE s.inbox_id = $2 AND s.retention_days = $3 AND s.message_id >= $4 AND s.message_id < $5
    ORDER BY s.message_id DESC LIMIT 1
) AS newest, (
    SELECT s.message_id FROM search_line AS s
    WHERE s.inbox_id = $2 AND s.retention_days = $3 AND s.message_id >= $4 AND s.message_id < $5
    ORDER BY s.message_id DESC OFFSET $6 LIMIT 1
) AS lowest
FROM inbox
WHERE inbox.workspace_id = $1 AND inbox.id = $2 AND inbox.retention_days = $3;

-- name: reach_in_workspace
-- The same of all lines of workspace $1.
SELECT (
    SELECT s.message_id FROM search_line AS s
    WHERE s.workspace_id = $1 AND s.message_id >= $4 AND s.message_id < $5
    ORDER BY s.message_id DESC LIMIT 1
) AS newest, (
    SELECT s.message_id FROM search_line AS s
    WHERE s.workspace_id = $1 AND s.message_id >= $4 AND s.message_id < $5
    ORDER BY s.message_id DESC OFFSET $6 LIMIT 1
) AS lowest
WHERE $2::uuid IS NULL AND $3::smallint IS NULL;

-- part: of_line
-- The columns of a line that a hit shows.
SELECT inbox_message.inbox_id, inbox_message.message_id, recipient, from_address, from_name,
       subject, preview, sent_at, header_message_id, size_bytes, attachments,
       message_retention_days, inbox_message.deleted_at AS expires_at,
       coalesce(state.thread_id, inbox_message.message_id) AS thread_id,
       coalesce(state.folder, 'inbox') AS folder, coalesce(state.labels, '{}') AS labels,
       coalesce(state.seen, false) AS seen, coalesce(state.starred, false) AS starred
FROM inbox_message
LEFT JOIN line_state AS state
  ON state.inbox_id = inbox_message.inbox_id AND state.message_id = inbox_message.message_id
     AND state.retention_days = inbox_message.retention_days
     AND state.workspace_id = inbox_message.workspace_id
WHERE inbox_message.workspace_id = $1 AND inbox_message.inbox_id = hit.inbox_id
  AND inbox_message.message_id = hit.message_id
  AND inbox_message.retention_days = hit.retention_days
  AND (inbox_message.deleted_at IS NULL OR inbox_message.deleted_at > now())
  AND EXISTS (
      SELECT FROM inbox
      WHERE inbox.workspace_id = $1 AND inbox.id = hit.inbox_id
        AND inbox.retention_days = hit.retention_days AND inbox.deleted_at IS NULL
        AND (inbox.expires_at IS NULL OR inbox.expires_at > now())
        AND (inbox.message_ttl_s IS NULL OR hit.message_id
             >= lowest_id_at(now() - make_interval(secs => inbox.message_ttl_s)))
  )
OFFSET 0

-- name: lines
-- The lines of workspace $1 that living inboxes show, of inboxes $2, messages $3, classes $4 and
-- languages $5, in that order.
SELECT hit.language, line.*
FROM unnest($2::uuid[], $3::uuid[], $4::smallint[], $5::text[])
    WITH ORDINALITY AS hit (inbox_id, message_id, retention_days, language, nth)
CROSS JOIN LATERAL (
-- use: of_line
) AS line
ORDER BY hit.nth;

-- part: shown
-- Of the lines that are looked at, newest first, those that match, up to $7; how many lines there were,
-- and how far they reach. A line behind the last one is not looked at.
hit AS MATERIALIZED (
    SELECT s.inbox_id, s.message_id, s.retention_days, s.language
    FROM (SELECT * FROM looked ORDER BY message_id DESC, inbox_id OFFSET 0) AS s
    WHERE {condition}
    ORDER BY s.message_id DESC, s.inbox_id
    LIMIT $7
)

-- name: walk
-- The newest $6 lines in the scope ($1 the workspace) with ids in [$4, $5), looked at one by one.
WITH looked AS MATERIALIZED (
    SELECT s.inbox_id, s.message_id, s.retention_days, s.language, s.size_bytes, s.words, s.parts
    FROM search_line AS s
    WHERE (s.workspace_id = $1) IS TRUE AND {scope}
      AND s.message_id >= $4 AND s.message_id < $5 AND $8::bigint[] IS NULL
    ORDER BY s.message_id DESC
    LIMIT $6
),
-- use: shown
SELECT (SELECT count(*) FROM looked)::integer AS looked,
       (SELECT message_id FROM looked ORDER BY message_id LIMIT 1) AS lowest, hit.*
FROM (SELECT) AS one
LEFT JOIN hit ON true
ORDER BY hit.message_id DESC, hit.inbox_id;

-- name: seek
-- The newest $6 of the lines in the scope with ids in [$4, $5), of keys $8, that the index finds.
WITH looked AS MATERIALIZED (
    SELECT s.inbox_id, s.message_id, s.retention_days, s.language{carried}
    FROM search_line AS s
    WHERE (s.workspace_id = $1) IS TRUE AND {scope}
      AND (s.message_id >= $4 AND s.message_id < $5) IS TRUE
      AND search_facts(s.message_id, s.size_bytes) && $8::bigint[] AND {guard}
    ORDER BY s.message_id DESC, s.inbox_id
    LIMIT $6
),
-- use: shown
SELECT (SELECT count(*) FROM looked)::integer AS looked,
       (SELECT message_id FROM looked ORDER BY message_id LIMIT 1) AS lowest, hit.*
FROM (SELECT) AS one
LEFT JOIN hit ON true
ORDER BY hit.message_id DESC, hit.inbox_id;

-- name: marked
-- The newest $6 lines in the scope with ids in [$4, $5) that stand in a mailbox of workspace $1 as
-- asked.
WITH marked AS MATERIALIZED (
    SELECT state.inbox_id, state.message_id, state.retention_days
    FROM line_state AS state
    WHERE (state.workspace_id = $1) IS TRUE AND {scope} AND state.message_id >= $4 AND state.message_id < $5 AND $8::bigint[] IS NULL
      AND {marks}
    ORDER BY state.message_id DESC
    LIMIT $6
), looked AS (
    SELECT s.inbox_id, s.message_id, s.retention_days, s.language, s.size_bytes, s.words, s.parts
    FROM marked
    JOIN search_line AS s
      ON s.inbox_id = marked.inbox_id AND s.message_id = marked.message_id
         AND s.retention_days = marked.retention_days
    WHERE s.workspace_id = $1
),
-- use: shown
SELECT (SELECT count(*) FROM marked)::integer AS looked,
       (SELECT message_id FROM marked ORDER BY message_id LIMIT 1) AS lowest, hit.*
FROM (SELECT) AS one
LEFT JOIN hit ON true
ORDER BY hit.message_id DESC, hit.inbox_id;

-- name: count_found
-- How many lines in the scope ($1 the workspace) with ids in [$4, $5), of keys $6, the index finds.
SELECT count(*) AS found
FROM search_line AS s
WHERE (s.workspace_id = $1) IS TRUE AND {scope}
      AND (s.message_id >= $4 AND s.message_id < $5) IS TRUE
  AND search_facts(s.message_id, s.size_bytes) && $6::bigint[] AND {guard};

-- name: best
-- Of the newest $6 lines in the scope with ids in [$4, $5), of keys $8, that the index finds and that
-- match, those that fit the words {ranking} best, from $9 on, up to $7; $1 is the workspace. And how
-- many the index found. A line's rank is told where it is read: to sort what it is told of, a thousand
-- bytes a line, took a fifth of the time.
WITH looked AS MATERIALIZED (
    SELECT s.* FROM (
        SELECT s.inbox_id, s.message_id, s.retention_days, s.language,
               ts_rank(s.words, {ranking}, 1) AS rank{carried}
        FROM search_line AS s
        WHERE (s.workspace_id = $1) IS TRUE AND {scope}
          AND (s.message_id >= $4 AND s.message_id < $5) IS TRUE
          AND search_facts(s.message_id, s.size_bytes) && $8::bigint[] AND {guard}
        OFFSET 0
    ) AS s
    ORDER BY s.message_id DESC, s.inbox_id
    LIMIT $6
), hit AS MATERIALIZED (
    SELECT s.inbox_id, s.message_id, s.retention_days, s.language, s.rank
    FROM looked AS s
    WHERE {condition}
    ORDER BY rank DESC, s.message_id DESC, s.inbox_id
    OFFSET $9
    LIMIT $7
)
SELECT (SELECT count(*) FROM looked)::integer AS found, hit.*
FROM (SELECT) AS one
LEFT JOIN hit ON true
ORDER BY hit.rank DESC, hit.message_id DESC, hit.inbox_id;

-- name: near
-- Of the lines in the scope ($1 the workspace) with ids in [$4, $5) and vectors of model $6 the $9 of
-- the most like signs $7, of these those nearest to the vector $8, from $10 on, up to $11. What points
-- elsewhere altogether is none. $12 says what holds for inboxes that do not say for themselves whether
-- their mail is found so; null: for all, none says so.
WITH near AS MATERIALIZED (
    SELECT s.inbox_id, s.message_id, s.retention_days, s.vector
    FROM search_vector AS s
    WHERE (s.workspace_id = $1) IS TRUE AND {scope}
      AND s.message_id >= $4 AND s.message_id < $5 AND s.model = $6
      AND CASE
          WHEN $12::boolean IS NULL THEN true
          WHEN $12::boolean THEN s.inbox_id NOT IN (
              SELECT id FROM inbox WHERE workspace_id = $1 AND NOT by_meaning)
          ELSE s.inbox_id IN (SELECT id FROM inbox WHERE workspace_id = $1 AND by_meaning)
      END
    ORDER BY s.bits <~> $7::text::bit(256)
    LIMIT $9
), hit AS MATERIALIZED (
    SELECT * FROM (
        SELECT inbox_id, message_id, retention_days, vector <=> $8::text::halfvec(256) AS distance
        FROM near
    ) AS measured
    WHERE distance < 0.9
    ORDER BY distance, message_id DESC, inbox_id
    OFFSET $10
    LIMIT $11
)
SELECT inbox_id, message_id, retention_days, 'simple' AS language
FROM hit
ORDER BY distance, message_id DESC, inbox_id;

-- name: write_vectors
-- Vectors of model $3 for messages $2 of workspace $1 in every inbox that shows them: signs $4, vectors
-- $5; $6 and $7 are the lowest and highest of $2, $8 is what holds for inboxes that do not say for
-- themselves whether their mail is found so. The caller holds the classes. How many lines.
WITH made AS MATERIALIZED (
    SELECT * FROM unnest($2::uuid[], $4::text[], $5::text[]) AS made (message_id, bits, vector)
), written AS (
    INSERT INTO search_vector (
        inbox_id, message_id, retention_days, workspace_id, model, bits, vector
    )
    SELECT line.inbox_id, line.message_id, line.retention_days, $1, $3::smallint,
           made.bits::bit(256), made.vector::halfvec(256)
    FROM message
    CROSS JOIN LATERAL unnest(message.inbox_ids) AS place (inbox_id)
    JOIN inbox_message AS line
      ON line.inbox_id = place.inbox_id AND line.message_id = message.id
    JOIN made ON made.message_id = message.id
    JOIN inbox ON inbox.id = line.inbox_id AND inbox.retention_days = line.retention_days
    WHERE message.workspace_id = $1 AND message.id = ANY($2::uuid[]) AND message.id BETWEEN $6 AND $7
      AND line.workspace_id = $1 AND line.message_id BETWEEN $6 AND $7
      AND inbox.workspace_id = $1 AND coalesce(inbox.by_meaning, $8::boolean)
      AND (line.deleted_at IS NULL OR line.deleted_at > now())
    ON CONFLICT DO NOTHING
    RETURNING 1
)
SELECT count(*) AS lines FROM written;

-- name: vectors_are_there
-- Whether the column that needs pgvector has been made.
SELECT EXISTS (
    SELECT FROM pg_attribute
    WHERE attrelid = 'search_vector'::regclass AND attname = 'vector' AND NOT attisdropped
);

-- name: make_extension
CREATE EXTENSION IF NOT EXISTS vector;

-- name: add_vectors
-- Nothing is in the table before it has the column.
ALTER TABLE search_vector ADD COLUMN vector halfvec(256) NOT NULL;

-- name: keep_vectors_apart
-- A search goes through the signs; the vectors lie out of line.
ALTER TABLE search_vector ALTER COLUMN vector SET STORAGE EXTERNAL;

-- name: has_words
-- The line's words match.
s.words @@ {query}::tsquery;

-- name: has_parts
-- Pieces of its words do.
s.parts @@ {query}::tsquery;

-- name: since
-- Received since a moment.
s.message_id >= {id}::uuid;

-- name: until
-- Received before it.
s.message_id < {id}::uuid;

-- name: larger
-- Larger than so many bytes.
s.size_bytes > {size}::integer;

-- name: smaller
-- Smaller than so many bytes.
s.size_bytes < {size}::integer;

-- name: of_keys
-- The line has one of the keys of search_facts.
search_facts(s.message_id, s.size_bytes) && {keys}::bigint[];

-- name: stands
-- The line of a workspace_id stands so in its mailbox.
EXISTS (
    SELECT FROM line_state AS state
    WHERE state.workspace_id = $1 AND state.inbox_id = s.inbox_id
      AND state.message_id = s.message_id AND state.retention_days = s.retention_days
      AND {how}
);

-- name: is_unread
NOT state.seen;

-- name: is_read
state.seen IS TRUE;

-- name: is_starred
state.starred;

-- name: is_muted
state.muted;

-- name: is_snoozed
state.snoozed_until > now();

-- name: is_labelled
state.labels <> '{}' AND state.labels @> ARRAY[{name}::text];

-- name: is_in_folder
lower(state.folder) = lower({name}::text);

-- name: headlines
-- The best places in texts $2, written in the languages $1, what matches the words $3 between the marks
-- $4 and $5; of those in $6 the whole. The texts are those of mails that a search of their workspace has
-- found.
SELECT nth::integer AS nth, ts_headline(
    language::regconfig, text, $3::tsquery,
    CASE WHEN whole THEN 'HighlightAll=true'
         ELSE 'MaxFragments=2, MinWords=8, MaxWords=24, FragmentDelimiter=" … "' END
        || ', StartSel=' || $4::text || ', StopSel=' || $5::text
) AS headline
FROM unnest($1::text[], $2::text[], $6::boolean[])
    WITH ORDINALITY AS found (language, text, whole, nth);
