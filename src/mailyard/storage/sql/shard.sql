-- name: places
-- Where workspaces are that are not where they were before $1; those of all, for $1 long ago.
SELECT workspace_id, shard, state, epoch, changed_at FROM shard_place WHERE changed_at > $1;

-- name: places_of
-- The same of some workspaces.
SELECT workspace_id, shard, state FROM shard_place WHERE workspace_id = ANY ($1::uuid[]);

-- name: operator
-- The workspace in whose name a cluster that is not the home one looks after itself: no person and
-- no key belongs to it, so nobody is an operator there.
INSERT INTO workspace (id, name) VALUES ($1, $2) ON CONFLICT DO NOTHING;

-- name: schema_version
-- The newest migration of a cluster.
SELECT max(number) FROM schema_migration;

-- name: find_names
-- Whose the names $2 of the kinds $1 are, by the directory: of whichever workspace_id, that is what is
-- asked.
SELECT held.kind, held.name, held.workspace_id
FROM unnest($1::text[], $2::text[]) AS given (kind, name)
JOIN shard_name AS held ON held.kind = given.kind AND held.name = given.name;

-- name: claim_names
-- The names $2 of the kind $1 are the workspace's $3 from now on; those that are. A name of a
-- workspace in the same cluster goes over: which of the two has it, the cluster's own tables have
-- decided. $4: the cluster of those without a place.
INSERT INTO shard_name AS held (kind, name, workspace_id)
SELECT $1, given.name, $3 FROM unnest($2::text[]) AS given (name) ORDER BY given.name
ON CONFLICT (kind, name) DO UPDATE
SET workspace_id = EXCLUDED.workspace_id, claimed_at = clock_timestamp()
WHERE held.workspace_id = EXCLUDED.workspace_id
   OR coalesce((SELECT shard FROM shard_place WHERE workspace_id = held.workspace_id), $4)
    = coalesce((SELECT shard FROM shard_place WHERE workspace_id = EXCLUDED.workspace_id), $4)
RETURNING name;

-- name: claim_person
-- The account of the address $1: $2, if it has none yet, by way of the workspace_id $3; and whether
-- it is one of another cluster. $4: the cluster of workspaces without a place.
INSERT INTO shard_name AS held (kind, name, workspace_id, person_id) VALUES ('person', $1, $3, $2)
ON CONFLICT (kind, name) DO UPDATE SET claimed_at = clock_timestamp()
RETURNING person_id,
          coalesce((SELECT shard FROM shard_place WHERE workspace_id = held.workspace_id), $4)
       <> coalesce((SELECT shard FROM shard_place WHERE workspace_id = $3), $4) AS elsewhere;

-- name: claimed_names
-- The next $5 names behind ($1, $2) that workspaces of the cluster $3 had claimed $4 seconds ago; $6:
-- the cluster of those without a place.
SELECT held.kind, held.name, held.workspace_id, held.claimed_at
FROM shard_name AS held
LEFT JOIN shard_place AS place ON place.workspace_id = held.workspace_id
WHERE (held.kind, held.name) > ($1::text, $2::text)
  AND coalesce(place.shard, $6) = $3 AND coalesce(place.state, 'active') = 'active'
  AND held.claimed_at < now() - make_interval(secs => $4)
ORDER BY held.kind, held.name LIMIT $5;

-- name: release_names
-- The names $2 of the kinds $1 are nobody's, where they are still as they were claimed at $4 by the
-- workspaces $3 (workspace_id). How many.
WITH gone AS (
    DELETE FROM shard_name AS held
    USING unnest($1::text[], $2::text[], $3::uuid[], $4::timestamptz[])
          AS given (kind, name, workspace_id, claimed_at)
    WHERE held.kind = given.kind AND held.name = given.name
      AND held.workspace_id = given.workspace_id AND held.claimed_at = given.claimed_at
    RETURNING 1
)
SELECT count(*) FROM gone;

-- name: keys_here
-- API keys of this cluster behind the prefix $1, $2 of them.
SELECT prefix AS name, workspace_id FROM api_key
WHERE prefix > $1 AND revoked_at IS NULL ORDER BY prefix LIMIT $2;

-- name: hooks_here
-- Hooks of providers in this cluster behind $1.
SELECT encode(token_hash, 'hex') AS name, workspace_id FROM provider_hook
WHERE token_hash > decode($1, 'hex') ORDER BY token_hash LIMIT $2;

-- name: sessions_here
-- Living sessions of this cluster behind $1.
SELECT encode(token_hash, 'hex') AS name, workspace_id FROM session
WHERE token_hash > decode($1, 'hex') AND expires_at > now() ORDER BY token_hash LIMIT $2;

-- name: people_here
-- Who belongs to workspaces of this cluster: addresses behind $1, each by way of the oldest
-- workspace_id.
SELECT person.email AS name, person.id AS person_id,
       (SELECT min(workspace_id::text)::uuid FROM membership WHERE user_id = person.id) AS workspace_id
FROM user_account AS person
WHERE person.email > $1 AND EXISTS (SELECT FROM membership WHERE user_id = person.id)
ORDER BY person.email LIMIT $2;

-- name: addresses_here
-- Addresses of living inboxes of this cluster, behind $1.
SELECT address AS name, workspace_id FROM address
WHERE address > $1 AND (expires_at IS NULL OR expires_at > now()) ORDER BY address LIMIT $2;

-- name: reserved_here
-- Addresses that workspaces of this cluster hold, behind $1.
SELECT address AS name, workspace_id FROM reserved_address
WHERE address > $1 ORDER BY address LIMIT $2;

-- name: domains_here
-- Proved receiving domains of this cluster, behind $1.
SELECT name, workspace_id FROM receiving_domain
WHERE name > $1 AND proved_at IS NOT NULL ORDER BY name LIMIT $2;

-- name: find_workspaces
-- The workspace behind each of the names $2 of the kind $1 in this cluster, as far as it has it. The
-- caller knows the name and not the workspace: that is what is asked. Names are hexadecimal where
-- the column holds bytes.
SELECT name, workspace_id FROM (
    SELECT prefix AS name, workspace_id FROM api_key
    WHERE $1 = 'key' AND prefix = ANY ($2::text[])
    UNION ALL
    SELECT encode(token_hash, 'hex'), workspace_id FROM session
    WHERE $1 = 'session' AND token_hash = ANY (
        SELECT decode(given, 'hex') FROM unnest($2::text[]) AS given WHERE $1 = 'session')
    UNION ALL
    SELECT encode(token_hash, 'hex'), workspace_id FROM provider_hook
    WHERE $1 = 'hook' AND token_hash = ANY (
        SELECT decode(given, 'hex') FROM unnest($2::text[]) AS given WHERE $1 = 'hook')
    UNION ALL
    SELECT encode(token_hash, 'hex'), workspace_id FROM invitation
    WHERE $1 = 'invitation' AND token_hash = ANY (
        SELECT decode(given, 'hex') FROM unnest($2::text[]) AS given WHERE $1 = 'invitation')
    UNION ALL
    SELECT encode(link.token_hash, 'hex'), member.workspace_id
    FROM login_link AS link JOIN membership AS member USING (user_id)
    WHERE $1 = 'link' AND link.token_hash = ANY (
        SELECT decode(given, 'hex') FROM unnest($2::text[]) AS given WHERE $1 = 'link')
    UNION ALL
    SELECT person.email, member.workspace_id
    FROM user_account AS person JOIN membership AS member ON member.user_id = person.id
    WHERE $1 = 'person' AND person.email = ANY ($2::text[])
    UNION ALL
    SELECT address, workspace_id FROM address
    WHERE $1 = 'address' AND address = ANY ($2::text[])
      AND (expires_at IS NULL OR expires_at > now())
    UNION ALL
    SELECT address, workspace_id FROM reserved_address
    WHERE $1 = 'address' AND address = ANY ($2::text[])
    UNION ALL
    SELECT name, workspace_id FROM receiving_domain
    WHERE $1 = 'domain' AND name = ANY ($2::text[]) AND proved_at IS NOT NULL
    UNION ALL
    SELECT id::text, workspace_id FROM delivery
    WHERE $1 = 'delivery' AND id = ANY (
        SELECT given::uuid FROM unnest($2::text[]) AS given WHERE $1 = 'delivery')
    UNION ALL
    SELECT encode(link.token_hash, 'hex'), member.workspace_id
    FROM account_link AS link
    JOIN user_account AS person ON person.email = link.email
    JOIN membership AS member ON member.user_id = person.id
    WHERE $1 = 'reset' AND link.token_hash = ANY (
        SELECT decode(given, 'hex') FROM unnest($2::text[]) AS given WHERE $1 = 'reset')
) AS found;

-- name: add_place
-- The workspace $1 is at $2, where nothing else is known of it.
INSERT INTO shard_place (workspace_id, shard, state) VALUES ($1, $2, 'active')
ON CONFLICT DO NOTHING;

-- name: place_of
-- Where the workspace is.
SELECT shard, state, epoch FROM shard_place WHERE workspace_id = $1;

-- name: set_moving
-- Says that the workspace $1 takes no changes now ($2 moving), or does again (active).
UPDATE shard_place SET state = $2, changed_at = clock_timestamp() WHERE workspace_id = $1;

-- name: switch
-- The workspace $1 is at $2 from now on.
UPDATE shard_place
SET shard = $2, state = 'active', epoch = epoch + 1, changed_at = clock_timestamp()
WHERE workspace_id = $1;

-- name: begin_move
-- A move $1 of the workspace $2 from $3 to $4.
INSERT INTO shard_move (id, workspace_id, source, target) VALUES ($1, $2, $3, $4);

-- name: open_move
-- The move of the workspace that has not ended.
SELECT id, workspace_id, source, target, state FROM shard_move
WHERE workspace_id = $1 AND state IN ('copying', 'frozen', 'switched');

-- name: left_moves
-- Moves of all workspaces (workspace_id) that have been frozen, or have been letting go, for $1
-- seconds.
SELECT workspace_id, target FROM shard_move
WHERE state IN ('frozen', 'switched')
  AND coalesce(switched_at, frozen_at) < now() - make_interval(secs => $1)
ORDER BY id;

-- name: move_of
-- A move $1, and how long it was frozen. The caller has it from its workspace_id.
SELECT rows_moved, frozen_at, switched_at FROM shard_move WHERE id = $1;

-- name: moves
-- The newest $1 moves of all workspaces.
SELECT id, workspace_id, source, target, state, frozen_at, switched_at, ended_at, rows_moved, trouble
FROM shard_move ORDER BY id DESC LIMIT $1;

-- name: step_move
-- The move $1 of workspace $2 is $3 now; $4 rows; $5 what was in the way.
UPDATE shard_move
SET state = $3, rows_moved = coalesce($4, rows_moved), trouble = $5,
    frozen_at = CASE WHEN $3 = 'frozen' THEN coalesce(frozen_at, now())
                     WHEN $3 = 'copying' THEN NULL ELSE frozen_at END,
    switched_at = CASE WHEN $3 = 'switched' THEN now() ELSE switched_at END,
    ended_at = CASE WHEN $3 IN ('done', 'given up') THEN now() END
WHERE id = $1 AND workspace_id = $2;

-- name: progress
-- How far the tables of a move have got.
SELECT table_name, behind, rows, finished FROM shard_progress WHERE move_id = $1;

-- name: note_progress
-- The table $2 of the move $1 is copied up to the key $3, with $4 rows more; $5: to its end.
INSERT INTO shard_progress (move_id, table_name, behind, rows, finished) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (move_id, table_name) DO UPDATE
SET behind = coalesce(EXCLUDED.behind, shard_progress.behind),
    rows = shard_progress.rows + EXCLUDED.rows, finished = EXCLUDED.finished;

-- name: counts
-- How many workspaces the directory names in each shard; those at home by default are not among them.
SELECT shard, count(*) AS workspaces FROM shard_place GROUP BY shard ORDER BY shard;

-- name: lock_mover
-- One mover of a workspace at a time: the lock is the session's, and goes with it. $1: a number that
-- stands for the workspace.
SELECT pg_try_advisory_lock(72174110, $1);

-- name: tables
-- Every table of the schema that is no partition: its key, its columns (with what each is filled
-- with by itself), whether it has a workspace, whom it refers to.
SELECT t.relname::text AS name,
       EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = t.oid
               AND a.attname = 'workspace_id' AND NOT a.attisdropped) AS owned,
       ARRAY(SELECT a.attname::text
             FROM pg_index AS i
             CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, nth)
             JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = k.attnum
             WHERE i.indrelid = t.oid AND i.indisprimary ORDER BY k.nth) AS key,
       ARRAY(SELECT a.attname::text FROM pg_attribute AS a
             LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attgenerated = '' AND a.attidentity = ''
               AND a.atttypid <> 'xid8'::regtype
               AND coalesce(pg_get_expr(d.adbin, d.adrelid), '') !~ 'nextval'
             ORDER BY a.attnum) AS columns,
       ARRAY(SELECT DISTINCT r.relname::text FROM pg_constraint AS c
             JOIN pg_class AS r ON r.oid = c.confrelid
             WHERE c.conrelid = t.oid AND c.contype = 'f' AND c.confrelid <> t.oid) AS refers_to,
       (SELECT encode(g.tgargs, 'escape') FROM pg_trigger AS g
        WHERE g.tgrelid = t.oid AND g.tgname = 'A_shard_guard') AS guard
FROM pg_class AS t
WHERE t.relnamespace = current_schema()::regnamespace AND t.relkind IN ('r', 'p')
  AND NOT t.relispartition
ORDER BY t.relname;

-- name: say_guard
-- The statement that makes the guard of table $1 with the function $2 and the arguments $3. Triggers
-- act in the order of their names: before those of foreign keys, RI_….
SELECT format('CREATE OR REPLACE TRIGGER "A_shard_guard" AFTER INSERT OR UPDATE OR DELETE ON %I '
              'FOR EACH ROW EXECUTE FUNCTION %I(%s)', $1::text, $2::text,
              (SELECT string_agg(quote_literal(one), ', ' ORDER BY nth)
               FROM unnest($3::text[]) WITH ORDINALITY AS given (one, nth)));

-- name: limit_lock_wait
-- Nobody waits long behind the statement that makes a guard.
SELECT set_config('lock_timeout', $1, true);

-- name: set_fence
-- The fence of the workspace $1 is $2.
INSERT INTO shard_fence (workspace_id, state) VALUES ($1, $2)
ON CONFLICT (workspace_id) DO UPDATE SET state = EXCLUDED.state, since = now();

-- name: lift_fence
-- The workspace's rows may change here as they like.
DELETE FROM shard_fence WHERE workspace_id = $1;

-- name: next_transaction
-- A number above all transactions that have written by now.
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint;

-- name: oldest_transaction
-- All transactions below this have ended.
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint;

-- name: let_pass
-- The transaction is the mover's of the workspace $1: its rows may go and come.
SELECT set_config('mailyard.shard_mover', $1::text, true);

-- name: begin_arrival
-- One mover of workspace number $1 writes here at a time.
SELECT pg_advisory_xact_lock(72174111, $1);

-- name: arrived
-- The move with which all of the workspace came here, and how many rows.
SELECT move_id, rows_moved FROM shard_arrival WHERE workspace_id = $1;

-- name: note_arrival
-- All of the workspace $1 is here, by the move $2, $3 rows; it may have left here before.
WITH fence AS (DELETE FROM shard_fence WHERE workspace_id = $1)
INSERT INTO shard_arrival (workspace_id, move_id, rows_moved) VALUES ($1, $2, $3);

-- name: forget_arrival
-- The workspace is not here, or no longer.
DELETE FROM shard_arrival WHERE workspace_id = $1;

-- name: changes
-- Up to $2 keys of rows of the workspace $1 that have changed.
SELECT id, table_name, key::text AS key FROM shard_change WHERE workspace_id = $1 ORDER BY id LIMIT $2;

-- name: forget_changes
-- The changes $2 of the workspace $1 are done.
DELETE FROM shard_change WHERE workspace_id = $1 AND id = ANY ($2::bigint[]);

-- name: forget_all_changes
-- No changes of the workspace are noted any more.
DELETE FROM shard_change WHERE workspace_id = $1;

-- part: of
-- Which rows of a table $1 are the workspace's $2, whose column is not always called workspace_id.
whose AS (
    SELECT CASE $1::text
        WHEN 'workspace' THEN format('id = %L', $2::uuid)
        WHEN 'user_account' THEN
            format('id IN (SELECT user_id FROM membership WHERE workspace_id = %L '
                   'UNION SELECT user_id FROM session WHERE workspace_id = %L)', $2::uuid, $2::uuid)
        WHEN 'login_link' THEN
            format('user_id IN (SELECT user_id FROM membership WHERE workspace_id = %L)', $2::uuid)
        WHEN 'provider_hook_seen' THEN
            format('hook_id IN (SELECT id FROM provider_hook WHERE workspace_id = %L)', $2::uuid)
        WHEN 'provider_event' THEN
            format('provider_id IN (SELECT id FROM provider WHERE workspace_id = %L)', $2::uuid)
        ELSE format('workspace_id = %L', $2::uuid)
    END AS condition
),
typed AS (
    SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.nth) AS names,
           string_agg(quote_ident(a.attname) || '::text', ', ' ORDER BY k.nth) AS texts,
           array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY k.nth) AS types
    FROM unnest($3::text[]) WITH ORDINALITY AS k (name, nth)
    JOIN pg_attribute AS a ON a.attrelid = $1::text::regclass AND a.attname = k.name
),

-- name: say_chunk_end
-- The statement that finds the key of the last of the next $5 rows of table $1 (workspace $2, key
-- columns $3) behind the key $4, and how many they are.
WITH
-- use: of
bound AS (
    SELECT string_agg(format('%L::%s', one, types[nth::int]), ', ' ORDER BY nth) AS below
    FROM typed, unnest($4::text[]) WITH ORDINALITY AS given (one, nth)
)
SELECT format('SELECT ARRAY[%s] AS key, count(*) OVER () AS rows FROM (SELECT %s FROM %I '
              'WHERE %s%s ORDER BY %s LIMIT %s) AS chunk ORDER BY %s LIMIT 1',
              texts, names, $1::text, condition,
              coalesce(' AND (' || names || ') > (' || (SELECT below FROM bound) || ')', ''),
              names, $5::int,
              replace(names, ',', ' DESC,') || ' DESC')
FROM whose, typed;

-- name: say_range
-- The condition of the rows of table $1 (workspace $2, key columns $3) behind $4 up to $5; an absent
-- bound is none.
WITH
-- use: of
below AS (
    SELECT string_agg(format('%L::%s', one, types[nth::int]), ', ' ORDER BY nth) AS texts
    FROM typed, unnest($4::text[]) WITH ORDINALITY AS given (one, nth)
),
above AS (
    SELECT string_agg(format('%L::%s', one, types[nth::int]), ', ' ORDER BY nth) AS texts
    FROM typed, unnest($5::text[]) WITH ORDINALITY AS given (one, nth)
)
SELECT condition
    || coalesce(' AND (' || names || ') > (' || (SELECT texts FROM below) || ')', '')
    || coalesce(' AND (' || names || ') <= (' || (SELECT texts FROM above) || ')', '')
FROM whose, typed;

-- name: say_keys
-- The condition of the rows of table $1 (workspace $2, key columns $3) whose keys are $4, each an
-- array as text.
WITH
-- use: of
listed AS (
    SELECT string_agg('(' || (
        SELECT string_agg(format('%L::%s', one, types[nth::int]), ', ' ORDER BY nth)
        FROM unnest(given.key::text[]) WITH ORDINALITY AS part (one, nth)
    ) || ')', ', ') AS texts
    FROM typed, unnest($4::text[]) AS given (key)
)
SELECT format('%s AND (%s) IN (%s)', condition, names, (SELECT texts FROM listed))
FROM whose, typed;

-- name: say_select
-- The statement that reads the columns $2 of the rows of table $1 for which $3.
SELECT format('SELECT %s FROM %I WHERE %s',
              (SELECT string_agg(quote_ident(one), ', ' ORDER BY nth)
               FROM unnest($2::text[]) WITH ORDINALITY AS given (one, nth)),
              $1::text, $3::text);

-- name: say_delete
-- The statement that removes the rows of table $1 for which $2.
SELECT format('DELETE FROM %I WHERE %s', $1::text, $2::text);

-- name: say_delete_some
-- The same for some $3 of them. A place in a table is one in each of its partitions, so the condition
-- stands twice: other workspaces have rows at the same places.
SELECT format('DELETE FROM %I WHERE %s AND ctid = ANY (ARRAY(SELECT ctid FROM %I WHERE %s LIMIT %s))',
              $1::text, $2::text, $1::text, $2::text, $3::int);

-- name: say_waiting_room
-- The statement that makes a table of the transaction, with the columns $2 of $1.
SELECT format('CREATE TEMPORARY TABLE shard_room ON COMMIT DROP AS SELECT %s FROM %I WHERE false',
              (SELECT string_agg(quote_ident(one), ', ' ORDER BY nth)
               FROM unnest($2::text[]) WITH ORDINALITY AS given (one, nth)), $1::text);

-- name: say_take_in
-- The statement that takes what lies in that table into $1 (columns $2, key $3): new rows, and those
-- that are there already as they are now; with $4 those stay as they are.
SELECT format('INSERT INTO %I (%s) SELECT %s FROM shard_room ON CONFLICT %s',
              $1::text, names, names,
              CASE WHEN $4::boolean OR setters IS NULL THEN 'DO NOTHING'
                   ELSE format('(%s) DO UPDATE SET %s', key, setters) END)
FROM (
    SELECT string_agg(quote_ident(one), ', ' ORDER BY nth) AS names,
           string_agg(format('%I = EXCLUDED.%I', one, one), ', ' ORDER BY nth)
               FILTER (WHERE one <> ALL ($3::text[])) AS setters
    FROM unnest($2::text[]) WITH ORDINALITY AS given (one, nth)
) AS columns,
(
    SELECT string_agg(quote_ident(one), ', ' ORDER BY nth) AS key
    FROM unnest($3::text[]) WITH ORDINALITY AS given (one, nth)
) AS keys;

-- name: say_checksum
-- The statement that counts and sums up the rows of table $1 for which $3: columns $2. Bytes enter
-- by their number alone unless $4.
SELECT format('SELECT count(*) AS rows, coalesce(sum((''x'' || substr(md5(ROW(%s)::text), 1, 15))'
              '::bit(60)::bigint), 0)::text AS sum FROM %I WHERE %s',
              string_agg(CASE WHEN a.atttypid = 'bytea'::regtype AND NOT $4::boolean
                              THEN format('octet_length(%I)', a.attname)
                              ELSE quote_ident(a.attname) END, ', ' ORDER BY a.attnum),
              $1::text, $3::text)
FROM pg_attribute AS a
WHERE a.attrelid = $1::text::regclass AND a.attname = ANY ($2::text[]);

-- name: strangers
-- Of the people $1 with the addresses $2 those who have an account of their own here.
SELECT given.email FROM unnest($1::uuid[], $2::text[]) AS given (id, email)
JOIN user_account AS person ON person.email = given.email AND person.id <> given.id;

-- name: part_ways_in
-- People who come with the workspace $1 and belong to others here: nobody who could come in there in
-- their name comes in here. Their sessions and links of there end; where they are not known to read
-- the mail of their address, so do those of here, and the password. The sessions that ended.
WITH both_sides AS MATERIALIZED (
    SELECT person.id, person.verified_at IS NULL AS doubtful
    FROM user_account AS person
    JOIN membership AS own ON own.user_id = person.id AND own.workspace_id = $1
    WHERE EXISTS (SELECT FROM membership AS other
                  WHERE other.user_id = person.id AND other.workspace_id <> $1)
),
spent AS (DELETE FROM login_link WHERE user_id IN (SELECT id FROM both_sides)),
forgotten AS (
    UPDATE user_account SET password_hash = NULL
    WHERE id IN (SELECT id FROM both_sides WHERE doubtful) AND password_hash IS NOT NULL
)
DELETE FROM session USING both_sides
WHERE session.user_id = both_sides.id AND (session.workspace_id = $1 OR both_sides.doubtful)
RETURNING session.token_hash;

-- name: people
-- The people of a workspace.
SELECT id, email FROM user_account
WHERE id IN (SELECT user_id FROM membership WHERE workspace_id = $1
             UNION SELECT user_id FROM session WHERE workspace_id = $1);

-- part: lines
-- The lines of the workspace $1, and those of their suspects.
own AS MATERIALIZED (SELECT id, queue, priority FROM queue_line WHERE workspace_id = $1),
both_ids AS MATERIALIZED (SELECT id FROM own UNION ALL SELECT -id FROM own),

-- name: hold_jobs
-- Nobody is given jobs of the workspace $1: they leave their places, and lie held. How many.
WITH
-- use: lines
ready AS (
    DELETE FROM job_ready WHERE line_id IN (SELECT id FROM both_ids) RETURNING line_id, job_id, since
),
parked AS (
    DELETE FROM job_parked
    WHERE job_id IN (SELECT job.id FROM job_parked JOIN job ON job.id = job_parked.job_id
                     WHERE job.line_id IN (SELECT id FROM both_ids))
    RETURNING queue, job_id
),
scheduled AS (
    DELETE FROM job_scheduled
    WHERE job_id IN (SELECT job.id FROM job_scheduled JOIN job ON job.id = job_scheduled.job_id
                     WHERE job.line_id IN (SELECT id FROM both_ids))
    RETURNING run_at, job_id
),
counted AS (
    INSERT INTO queue_delta (queue, ready, scheduled)
    SELECT queue, -count(*), count(*)
    FROM (SELECT own.queue FROM ready JOIN own ON own.id = abs(ready.line_id)
          UNION ALL SELECT queue FROM parked) AS gone
    GROUP BY queue
),
held AS (
    INSERT INTO shard_held_job (job_id, workspace_id, run_at)
    SELECT job_id, $1, since FROM ready
    UNION ALL SELECT job_id, $1, now() FROM parked
    UNION ALL SELECT job_id, $1, run_at FROM scheduled
    ON CONFLICT (job_id) DO UPDATE SET run_at = EXCLUDED.run_at
    RETURNING 1
)
SELECT count(*) FROM held;

-- name: jobs_at_work
-- The jobs of the workspace $1 that somebody works on.
WITH
-- use: lines
waiting AS (
    SELECT job_id FROM shard_held_job WHERE workspace_id = $1
    UNION ALL SELECT job_id FROM job_ready WHERE line_id IN (SELECT id FROM both_ids)
    UNION ALL SELECT job_id FROM job_scheduled
    UNION ALL SELECT job_id FROM job_parked
)
SELECT id, kind FROM job
WHERE line_id IN (SELECT id FROM both_ids) AND id NOT IN (SELECT job_id FROM waiting);

-- name: returns_at_work
-- Whether a job of nobody's line on the queue $1 that is due was enqueued before $2: mail that came
-- back, events of providers, whose workspace its handler finds. Those have no workspace_id.
SELECT EXISTS (
    SELECT FROM job JOIN queue_line AS line ON line.id = abs(job.line_id)
    WHERE line.workspace_id IS NULL AND line.queue = $1 AND job.enqueued_at < $2
      AND job.id NOT IN (SELECT job_id FROM job_scheduled));

-- name: release_jobs
-- The held jobs of the workspace $1 are given out again, each at its time.
WITH back AS (
    DELETE FROM shard_held_job WHERE workspace_id = $1 RETURNING job_id, run_at
)
INSERT INTO job_scheduled (run_at, job_id)
SELECT back.run_at, back.job_id FROM back JOIN job ON job.id = back.job_id
ON CONFLICT DO NOTHING;

-- name: leaving_jobs
-- Up to $3 held jobs of the workspace $1 behind the job $2.
SELECT job.id, line.queue, line.priority, job.line_id < 0 AS suspect, job.attempts, job.crashes,
       job.chances, job.max_attempts, job.enqueued_at, job.kind, job.unique_key, job.limit_key,
       job.error, job.payload, held.run_at
FROM shard_held_job AS held
JOIN job ON job.id = held.job_id
JOIN queue_line AS line ON line.id = abs(job.line_id)
WHERE held.workspace_id = $1 AND job.id > $2
ORDER BY job.id LIMIT $3;

-- name: leaving_dead
-- Up to $3 buried jobs of the workspace $1 behind the job $2.
SELECT dead.id, line.queue, line.priority, dead.line_id < 0 AS suspect, dead.attempts, dead.crashes,
       dead.chances, dead.max_attempts, dead.enqueued_at, dead.kind, dead.unique_key, dead.limit_key,
       dead.error, dead.payload, dead.buried_at, dead.again_at
FROM job_dead AS dead
JOIN queue_line AS line ON line.id = abs(dead.line_id)
WHERE line.workspace_id = $1 AND dead.id > $2
ORDER BY dead.id LIMIT $3;

-- name: arrive_lines
-- Lines for the workspace $1: queues $2, priorities $3.
INSERT INTO queue_line (queue, priority, workspace_id)
SELECT DISTINCT queue, priority, $1::uuid
FROM unnest($2::text[], $3::smallint[]) AS line (queue, priority)
ON CONFLICT DO NOTHING;

-- part: come
-- Jobs that come to the workspace $1, with ids of this cluster: queues $2, priorities $3, suspects
-- $4, attempts $5, crashes $6, chances $7, max_attempts $8, enqueued_at $9, kinds $10, unique keys
-- $11, limit keys $12, errors $13, payloads $14.
input AS MATERIALIZED (
    SELECT nextval('job_place') AS id,
           CASE WHEN given.suspect THEN -line.id ELSE line.id END AS line_id, line.queue AS of_queue,
           given.*
    FROM unnest($2::text[], $3::smallint[], $4::boolean[], $5::smallint[], $6::smallint[],
                $7::smallint[], $8::smallint[], $9::timestamptz[], $10::text[], $11::text[],
                $12::text[], $13::text[], $14::bytea[], $15::timestamptz[])
         AS given (queue, priority, suspect, attempts, crashes, chances, max_attempts, enqueued_at,
                   kind, unique_key, limit_key, error, payload, at)
    JOIN queue_line AS line ON line.queue = given.queue AND line.priority = given.priority
                           AND line.workspace_id = $1
),

-- name: arrive_jobs
-- They wait, due at $15. How many came.
WITH
-- use: come
added AS (
    INSERT INTO job (id, line_id, attempts, crashes, chances, max_attempts, enqueued_at, kind,
                     unique_key, limit_key, error, payload)
    SELECT id, line_id, attempts, crashes, chances, max_attempts, enqueued_at, kind, unique_key,
           limit_key, error, payload
    FROM input
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
    RETURNING id
),
scheduled AS (
    INSERT INTO job_scheduled (run_at, job_id)
    SELECT input.at, id FROM input JOIN added USING (id)
),
counted AS (
    INSERT INTO queue_delta (queue, scheduled)
    SELECT of_queue, count(*) FROM input JOIN added USING (id) GROUP BY of_queue
)
SELECT count(*) FROM added;

-- name: arrive_dead
-- They were buried at $15, and come again at $16. How many came.
WITH
-- use: come
again AS (
    SELECT row_number() OVER () AS nth, at FROM unnest($16::timestamptz[]) AS given (at)
),
numbered AS (SELECT row_number() OVER (ORDER BY id) AS nth, input.* FROM input),
added AS (
    INSERT INTO job_dead (id, line_id, turn, attempts, crashes, chances, max_attempts, enqueued_at,
                          buried_at, kind, unique_key, limit_key, error, payload, again_at)
    SELECT id, line_id, 0, attempts, crashes, chances, max_attempts, enqueued_at, numbered.at, kind,
           unique_key, limit_key, error, payload, again.at
    FROM numbered JOIN again USING (nth)
    RETURNING id
),
counted AS (
    INSERT INTO queue_delta (queue, dead) SELECT of_queue, count(*) FROM input GROUP BY of_queue
)
SELECT count(*) FROM added;

-- name: note_came_jobs
-- The jobs $2 of the cluster that the workspace $1 leaves come with this transaction: those of them
-- that have not come before.
INSERT INTO shard_came_job (workspace_id, job_id)
SELECT $1, job_id FROM unnest($2::bigint[]) AS given (job_id)
ON CONFLICT DO NOTHING
RETURNING job_id;

-- name: forget_came_jobs
-- Nothing of the workspace comes any more.
DELETE FROM shard_came_job WHERE workspace_id = $1;

-- name: drop_jobs
-- Those of the held and the buried jobs of the workspace $1 that are among $2 are elsewhere now.
WITH
-- use: lines
held AS (
    DELETE FROM shard_held_job WHERE workspace_id = $1 AND job_id = ANY ($2::bigint[])
    RETURNING job_id
),
gone AS (
    DELETE FROM job WHERE id IN (SELECT job_id FROM held) RETURNING id, line_id
),
freed AS (DELETE FROM job_slot WHERE job_id IN (SELECT job_id FROM held)),
dead AS (
    DELETE FROM job_dead
    WHERE line_id IN (SELECT id FROM both_ids) AND id = ANY ($2::bigint[])
    RETURNING line_id
),
counted AS (
    INSERT INTO queue_delta (queue, scheduled, dead)
    SELECT own.queue, -count(*) FILTER (WHERE NOT ended.buried), -count(*) FILTER (WHERE ended.buried)
    FROM (SELECT line_id, false AS buried FROM gone UNION ALL SELECT line_id, true FROM dead) AS ended
    JOIN own ON own.id = abs(ended.line_id)
    GROUP BY own.queue
)
SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM dead);

-- name: undealt_events
-- Whether the stream has events of the workspace $1 that webhooks have not been dealt yet.
SELECT EXISTS (
    SELECT FROM live_event AS event, webhook_cursor AS dealt
    WHERE event.workspace_id = $1 AND (event.xid, event.id) > (dealt.xid, dealt.id)
      AND EXISTS (SELECT FROM webhook WHERE workspace_id = $1 AND enabled));

-- name: keep_webhook_order
-- What webhooks of the workspace $1 are told from now on comes behind what waits for them already.
-- Others draw numbers meanwhile, so a number is only ever set far ahead of them.
SELECT setval('webhook_delivery_seq', newest.seq + 2000000)
FROM (SELECT max(seq) AS seq FROM webhook_delivery WHERE workspace_id = $1) AS newest
WHERE newest.seq + 1000000 > (SELECT last_value FROM webhook_delivery_seq);

-- name: newest_token
-- The newest fencing token of this cluster.
SELECT last_value FROM job_token;

-- name: pass_tokens
-- Leases of this cluster are newer than the token $1 from now on: rows that come here carry fences of
-- the cluster that they leave, and whoever has an older token takes them for another's. Others draw
-- tokens meanwhile, so the next one is only ever set far ahead of them.
SELECT setval('job_token', $1::bigint + 2000000)
WHERE $1::bigint + 1000000 > (SELECT last_value FROM job_token);

-- name: open_replays
-- Whether webhooks of the workspace are still being told again what was.
SELECT EXISTS (SELECT FROM webhook_replay WHERE workspace_id = $1 AND done_at IS NULL);

-- name: say_delete_absent
-- The statement that removes the rows of table $1 for which $2 that are not in the waiting room; $3
-- the key.
SELECT format('DELETE FROM %I WHERE %s AND NOT EXISTS (SELECT FROM shard_room AS room WHERE %s)',
              $1::text, $2::text,
              string_agg(format('room.%I = %I.%I', one, $1::text, one), ' AND '))
FROM unnest($3::text[]) AS given (one);

-- name: drop_waiting_room
-- The next table of the transaction gets its own.
DROP TABLE shard_room;

-- name: all_workspaces
-- The newest $2 workspaces of a cluster before $1, for the installation's operators. All of them: that
-- is what is asked; $3: but the one that the cluster has for itself.
SELECT id AS workspace_id, name, created_at FROM workspace
WHERE id < $1 AND id <> $3 ORDER BY id DESC LIMIT $2;
