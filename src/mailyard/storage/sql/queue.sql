-- name: add_lines
-- Makes lines: queues $1, priorities $2, workspaces $3.
INSERT INTO queue_line (queue, priority, workspace_id)
SELECT DISTINCT queue, priority, workspace_id
FROM unnest($1::text[], $2::smallint[], $3::uuid[]) AS line (queue, priority, workspace_id)
ON CONFLICT DO NOTHING;

-- name: lines
-- All lines, of all workspaces: whoever leases lets them take turns.
SELECT id, queue, priority, workspace_id FROM queue_line WHERE id > $1;

-- name: enqueue
-- Adds jobs that are due now and have no key: lines $1, kinds $2, payloads $3, max_attempts $4;
-- $5 the time; counts by queue $6, $7. A line belongs to one workspace.
SELECT enqueue_jobs($1::int[], $2::text[], $3::bytea[], $4::smallint[], $5::timestamptz, $6::text[],
                    $7::int[]) AS ids;

-- name: enqueue_special
-- Adds jobs of which some wait for their time $6, or have a unique key $7 or a limit key $8; else
-- as enqueue_jobs. What is not plainly due goes by way of job_scheduled. A line has one workspace.
WITH own AS MATERIALIZED (SELECT pg_current_xact_id() AS xid),
input AS MATERIALIZED (
    SELECT nextval('job_place') AS id, given.*
    FROM own, unnest($1::int[], $2::text[], $3::bytea[], $4::smallint[],
                     $6::timestamptz[], $7::text[], $8::text[])
         WITH ORDINALITY
         AS given (line_id, kind, payload, max_attempts, run_at, unique_key, limit_key, nth)
),
added AS (
    INSERT INTO job (id, line_id, max_attempts, enqueued_at, kind, payload, unique_key, limit_key)
    SELECT id, line_id, max_attempts, coalesce($5, now()), kind, payload, unique_key, limit_key
    FROM input
    ORDER BY unique_key, nth
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
    RETURNING id
),
routed AS MATERIALIZED (
    SELECT input.*, (run_at IS NOT NULL AND run_at > coalesce($5, now()))
                    OR limit_key IS NOT NULL AS waits
    FROM input JOIN added USING (id)
),
scheduled AS (
    INSERT INTO job_scheduled (run_at, job_id)
    SELECT greatest(run_at, coalesce($5, now())), id FROM routed WHERE waits
),
lined AS (
    INSERT INTO job_ready (line_id, place, job_id, since)
    SELECT line_id, id, id, coalesce($5, now()) FROM routed WHERE NOT waits
),
counted AS (
    INSERT INTO queue_delta (queue, ready, scheduled)
    SELECT line.queue, count(*) FILTER (WHERE NOT waits), count(*) FILTER (WHERE waits)
    FROM routed JOIN queue_line AS line ON line.id = routed.line_id
    GROUP BY line.queue
)
SELECT array_agg(routed.id ORDER BY input.nth) AS ids
FROM input LEFT JOIN routed ON routed.id = input.id;

-- name: lease
-- Takes up to $5 jobs, in the order of the lines given: ids $1, queues $2, behind the places $3, at
-- most $4 of each line; for worker $6 until $7 seconds after $8. One line has one workspace.
WITH open AS MATERIALIZED (
    SELECT line.*
    FROM unnest($1::int[], $2::text[], $3::bigint[], $4::int[])
         WITH ORDINALITY AS line (id, queue, after, share, nth)
    WHERE line.queue NOT IN (SELECT policy.queue FROM queue_policy AS policy WHERE policy.paused)
    ORDER BY line.nth
),
picked AS MATERIALIZED (
    SELECT place.tid, place.line_id, place.place, place.job_id, line.nth
    FROM open AS line
    CROSS JOIN LATERAL (
        SELECT ready.ctid AS tid, ready.line_id, ready.place, ready.job_id
        FROM job_ready AS ready
        WHERE ready.line_id = line.id AND ready.place > line.after
        ORDER BY ready.line_id, ready.place
        LIMIT line.share
        FOR UPDATE SKIP LOCKED
    ) AS place
    LIMIT $5
),
taken AS (
    DELETE FROM job_ready WHERE ctid = ANY (ARRAY(SELECT tid FROM picked))
),
found AS MATERIALIZED (
    SELECT picked.line_id, picked.place, picked.nth, job.*
    FROM picked
    CROSS JOIN LATERAL (
        SELECT id, turn, attempts, crashes, max_attempts, enqueued_at, kind, payload
        FROM job WHERE job.id = picked.job_id
        OFFSET 0
    ) AS job
),
lease AS (
    INSERT INTO job_lease (token, worker, expires_at, job_ids, turns)
    SELECT nextval('job_token'), $6,
           coalesce($8::timestamptz, now()) + make_interval(secs => $7::float8),
           array_agg(id), array_agg(turn)
    FROM found
    HAVING count(*) > 0
    RETURNING token, expires_at
),
counted AS (
    INSERT INTO queue_delta (queue, ready, leased)
    SELECT line.queue, -sum(given.jobs), sum(given.jobs)
    FROM (SELECT abs(line_id) AS line_id, count(*) AS jobs FROM found GROUP BY 1) AS given
    JOIN queue_line AS line ON line.id = given.line_id
    GROUP BY line.queue
)
SELECT found.id, found.line_id, found.place, found.turn, found.attempts, found.crashes,
       found.max_attempts, found.enqueued_at, found.kind, found.payload,
       lease.token, lease.expires_at
FROM found, lease
ORDER BY found.nth, found.place;

-- name: extend
-- Prolongs the leases $4 to $5 seconds after $6; which of the jobs $1 with turns $2 and tokens $3
-- are still held under them.
WITH kept AS (
    UPDATE job_lease
    SET expires_at = coalesce($6::timestamptz, now()) + make_interval(secs => $5::float8)
    WHERE token = ANY ($4::bigint[])
    RETURNING token
)
SELECT job.id
FROM unnest($1::bigint[], $2::int[], $3::bigint[]) AS held (id, turn, token)
JOIN kept ON kept.token = held.token
CROSS JOIN LATERAL (SELECT id, turn FROM job WHERE job.id = held.id OFFSET 0) AS job
WHERE job.turn = held.turn;

-- part: held
-- What settles jobs begins so: `mine` are those of the jobs $1 with turns $2 that are held under the
-- tokens $3 ($4: each once); the leases $5 hold nothing more then.
valid AS MATERIALIZED (SELECT token FROM job_lease WHERE token = ANY ($4::bigint[])),
mine AS MATERIALIZED (
    SELECT job.tid
    FROM unnest($1::bigint[], $2::int[], $3::bigint[]) AS held (id, turn, token)
    JOIN valid ON valid.token = held.token
    CROSS JOIN LATERAL (
        SELECT ctid AS tid, turn FROM job WHERE job.id = held.id OFFSET 0
    ) AS job
    WHERE job.turn = held.turn
),
ended AS (
    DELETE FROM job_lease
    WHERE ctid = ANY (ARRAY(SELECT ctid FROM job_lease WHERE token = ANY ($5::bigint[])
                            FOR UPDATE SKIP LOCKED))
),

-- name: complete
-- Finishes the held jobs. The token says whose job it is, whatever the workspace.
WITH
-- use: held
gone AS (
    DELETE FROM job WHERE ctid = ANY (ARRAY(SELECT tid FROM mine))
    RETURNING job.id, job.line_id, job.limit_key
),
freed AS (
    DELETE FROM job_slot
    WHERE job_id = ANY (ARRAY(SELECT id FROM gone WHERE limit_key IS NOT NULL))
),
counted AS (
    INSERT INTO queue_delta (queue, leased)
    SELECT line.queue, -sum(done.jobs)
    FROM (SELECT abs(line_id) AS line_id, count(*) AS jobs FROM gone GROUP BY 1) AS done
    JOIN queue_line AS line ON line.id = done.line_id
    GROUP BY line.queue
)
SELECT array_agg(id) AS ids FROM gone;

-- name: give_back
-- Gives back the held jobs, due at $6 seconds after $7. $8: 1 counts the attempt, 0 does not; $9 the
-- error. Who worked on it and lives to say so clears a suspect; who gives it back unworked does not.
-- The token says whose job it is, whatever the workspace.
WITH
-- use: held
back AS (
    UPDATE job
    SET turn = job.turn + 1, attempts = job.attempts + $8::int, error = coalesce($9, job.error),
        crashes = job.crashes * (1 - $8::int),
        line_id = CASE $8::int WHEN 1 THEN abs(job.line_id) ELSE job.line_id END
    WHERE ctid = ANY (ARRAY(SELECT tid FROM mine))
    RETURNING job.id, job.line_id, job.limit_key
),
scheduled AS (
    INSERT INTO job_scheduled (run_at, job_id)
    SELECT coalesce($7::timestamptz, now()) + make_interval(secs => $6::float8), id FROM back
),
freed AS (
    DELETE FROM job_slot
    WHERE job_id = ANY (ARRAY(SELECT id FROM back WHERE limit_key IS NOT NULL))
),
counted AS (
    INSERT INTO queue_delta (queue, leased, scheduled)
    SELECT line.queue, -count(*), count(*)
    FROM back JOIN queue_line AS line ON line.id = abs(back.line_id)
    GROUP BY line.queue
)
SELECT array_agg(id) AS ids FROM back;

-- name: bury
-- Dead-letters the held jobs at $6 with the error $7. The token says whose job it is, whatever the
-- workspace.
WITH
-- use: held
gone AS (
    DELETE FROM job WHERE ctid = ANY (ARRAY(SELECT tid FROM mine))
    RETURNING job.*
),
buried AS (
    INSERT INTO job_dead
    SELECT id, line_id, turn, attempts + 1, crashes, max_attempts, enqueued_at,
           coalesce($6::timestamptz, now()), kind, unique_key, limit_key, $7, payload, chances
    FROM gone
),
freed AS (
    DELETE FROM job_slot
    WHERE job_id = ANY (ARRAY(SELECT id FROM gone WHERE limit_key IS NOT NULL))
),
counted AS (
    INSERT INTO queue_delta (queue, leased, dead)
    SELECT line.queue, -count(*), count(*)
    FROM gone JOIN queue_line AS line ON line.id = abs(gone.line_id)
    GROUP BY line.queue
)
SELECT array_agg(id) AS ids FROM gone;

-- name: rescue
-- Takes leases that ran out before $1 from their workers: jobs go back as suspects, at once; those
-- that have ended $2 leases so, or have no attempt left, are buried with the error $3. Jobs of all
-- workspaces: a dead worker held them together.
WITH ran_out AS MATERIALIZED (
    SELECT token, job_ids, turns FROM job_lease
    WHERE expires_at < coalesce($1::timestamptz, now())
    ORDER BY token LIMIT 500
    FOR UPDATE SKIP LOCKED
),
ended AS (
    DELETE FROM job_lease WHERE token = ANY (ARRAY(SELECT token FROM ran_out))
),
held AS MATERIALIZED (
    SELECT job.tid, job.crashes + 1 < $2::int AND job.attempts + 1 < job.max_attempts AS again
    FROM ran_out
    CROSS JOIN unnest(job_ids, turns) AS held (id, turn)
    CROSS JOIN LATERAL (
        SELECT ctid AS tid, turn, crashes, attempts, max_attempts
        FROM job WHERE job.id = held.id OFFSET 0
    ) AS job
    WHERE job.turn = held.turn
),
back AS (
    UPDATE job
    SET turn = job.turn + 1, attempts = job.attempts + 1, crashes = job.crashes + 1,
        line_id = -abs(job.line_id), error = $3
    WHERE ctid = ANY (ARRAY(SELECT tid FROM held WHERE again))
    RETURNING job.id, job.line_id
),
gone AS (
    DELETE FROM job WHERE ctid = ANY (ARRAY(SELECT tid FROM held WHERE NOT again))
    RETURNING job.*
),
scheduled AS (
    INSERT INTO job_scheduled (run_at, job_id)
    SELECT coalesce($1::timestamptz, now()), id FROM back
),
buried AS (
    INSERT INTO job_dead
    SELECT id, line_id, turn, attempts + 1, crashes + 1, max_attempts, enqueued_at,
           coalesce($1::timestamptz, now()), kind, unique_key, limit_key, $3, payload, chances,
           CASE WHEN crashes + 1 >= $2::int THEN
               coalesce($1::timestamptz, now())
               + make_interval(secs => ($4::float8[])[chances + 1] * (1 + random()))
           END
    FROM gone
),
freed AS (
    DELETE FROM job_slot
    WHERE job_id = ANY (ARRAY(SELECT id FROM back UNION ALL SELECT id FROM gone))
),
counted AS (
    INSERT INTO queue_delta (queue, leased, scheduled, dead)
    SELECT line.queue, -count(*), sum(ended.again), count(*) - sum(ended.again)
    FROM (SELECT line_id, 1 AS again FROM back UNION ALL SELECT line_id, 0 FROM gone) AS ended
    JOIN queue_line AS line ON line.id = abs(ended.line_id)
    GROUP BY line.queue
)
SELECT (SELECT count(*) FROM back) + (SELECT count(*) FROM gone) AS jobs,
       ARRAY(SELECT DISTINCT line.queue FROM back
             JOIN queue_line AS line ON line.id = abs(back.line_id)) AS queues;

-- name: give_chances
-- Puts back what was buried for crashes and is due for a second chance at $1, as suspects that died
-- once; who finds his unique key taken stays buried. How many went to each queue, of all workspaces.
WITH due AS MATERIALIZED (
    SELECT dead.*, line.queue
    FROM job_dead AS dead
    JOIN queue_line AS line ON line.id = abs(dead.line_id)
    WHERE dead.again_at <= coalesce($1::timestamptz, now())
    ORDER BY dead.again_at LIMIT 100
    FOR UPDATE OF dead SKIP LOCKED
),
back AS (
    INSERT INTO job (id, line_id, turn, crashes, chances, max_attempts, enqueued_at, kind,
                     unique_key, limit_key, error, payload)
    SELECT id, -abs(line_id), turn + 1, 1, chances + 1, max_attempts, enqueued_at, kind,
           unique_key, limit_key, error, payload
    FROM due
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
    RETURNING id
),
gone AS (
    DELETE FROM job_dead WHERE id IN (SELECT id FROM back)
),
kept AS (
    UPDATE job_dead SET again_at = NULL
    WHERE id IN (SELECT id FROM due EXCEPT SELECT id FROM back)
),
scheduled AS (
    INSERT INTO job_scheduled (run_at, job_id) SELECT coalesce($1::timestamptz, now()), id FROM back
),
counted AS (
    INSERT INTO queue_delta (queue, dead, scheduled)
    SELECT due.queue, -count(*), count(*) FROM back JOIN due USING (id) GROUP BY due.queue
)
SELECT due.queue, count(*) AS jobs FROM back JOIN due USING (id) GROUP BY due.queue;

-- name: promote
-- Moves up to $3 jobs of all workspaces that are due at $1 (and after $2) into their lines, or beside
-- them when their key is limited. How many went to each queue.
WITH due AS MATERIALIZED (
    SELECT ctid AS tid, job_id, run_at FROM job_scheduled
    WHERE run_at <= coalesce($1::timestamptz, now()) AND run_at >= $2::timestamptz
    ORDER BY run_at, job_id
    LIMIT $3
    FOR UPDATE SKIP LOCKED
),
moved AS (
    DELETE FROM job_scheduled WHERE ctid = ANY (ARRAY(SELECT tid FROM due)) RETURNING job_id
),
routed AS MATERIALIZED (
    SELECT nextval('job_place') AS place, found.*
    FROM (
        SELECT job.id, job.line_id, job.limit_key, line.queue, due.run_at,
               job.limit_key IS NOT NULL
               AND (policy.key_rate_per_s IS NOT NULL OR policy.key_concurrency IS NOT NULL)
               AS limited
        FROM due
        JOIN moved ON moved.job_id = due.job_id
        CROSS JOIN LATERAL (
            SELECT id, line_id, limit_key FROM job WHERE job.id = due.job_id OFFSET 0
        ) AS job
        JOIN queue_line AS line ON line.id = abs(job.line_id)
        LEFT JOIN queue_policy AS policy ON policy.queue = line.queue
        ORDER BY due.run_at, due.job_id
    ) AS found
),
lined AS (
    INSERT INTO job_ready (line_id, place, job_id, since)
    SELECT line_id, place, id, run_at FROM routed WHERE NOT limited
),
parked AS (
    INSERT INTO job_parked (queue, limit_key, place, job_id)
    SELECT queue, limit_key, place, id FROM routed WHERE limited
),
keyed AS (
    INSERT INTO job_key (queue, limit_key)
    SELECT DISTINCT queue, limit_key FROM routed WHERE limited
    ORDER BY queue, limit_key
    ON CONFLICT DO NOTHING
),
counted AS (
    INSERT INTO queue_delta (queue, ready, scheduled)
    SELECT queue, count(*), -count(*) FROM routed GROUP BY queue
)
SELECT queue, count(*) AS jobs FROM routed GROUP BY queue;

-- name: upkeep
-- What a lease needs to know now and then: the next time of job_scheduled behind $1, the last place
-- drawn (a sequence that never gave one shows its first), the oldest transaction, lines with
-- suspects, and whether any key waits; with $3 also a transaction above all that have begun to
-- write: it is drawn, because a snapshot's xmax is only above those that have ended. Lines of all
-- workspaces; each is found by one step in the index, however many suspects it holds.
WITH RECURSIVE suspect AS (
    (SELECT line_id FROM job_ready WHERE line_id < 0 ORDER BY line_id LIMIT 1)
    UNION ALL
    SELECT (SELECT ready.line_id FROM job_ready AS ready
            WHERE ready.line_id > suspect.line_id AND ready.line_id < 0
            ORDER BY ready.line_id LIMIT 1)
    FROM suspect
    WHERE suspect.line_id IS NOT NULL
)
SELECT (SELECT run_at FROM job_scheduled WHERE run_at >= $1::timestamptz
        ORDER BY run_at LIMIT 1) AS next_at,
       (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM job_place) AS last_place,
       pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS xmin,
       CASE WHEN $3::boolean THEN pg_current_xact_id()::text::bigint END AS next_xid,
       ARRAY(SELECT line_id FROM suspect WHERE line_id IS NOT NULL) AS suspects,
       EXISTS (SELECT FROM job_parked) AS parked,
       coalesce($2::timestamptz, now()) AS now;

-- name: lock_keys
-- Claims keys with waiting jobs, so that only one process lets jobs through. Keys of all workspaces:
-- the caller who named them put the workspace in.
SELECT queue, limit_key FROM job_key AS key
WHERE EXISTS (SELECT FROM job_parked AS parked
              WHERE parked.queue = key.queue AND parked.limit_key = key.limit_key)
FOR UPDATE SKIP LOCKED;

-- name: admit
-- Lets jobs of the claimed keys (queues $1, keys $2) into their lines, as many as rate and
-- concurrency allow at $3. How many went to each queue.
WITH room AS MATERIALIZED (
    SELECT key.queue, key.limit_key, policy.key_rate_per_s,
           greatest(0, least(
               1000,
               policy.key_concurrency - (
                   SELECT count(*) FROM job_slot AS slot
                   WHERE slot.queue = key.queue AND slot.limit_key = key.limit_key),
               floor(extract(epoch FROM
                   coalesce($3::timestamptz, now())
                   - greatest(key.tat, coalesce($3::timestamptz, now()))
               )::float8 * policy.key_rate_per_s + policy.key_burst + 0.000001)
           ))::int AS jobs
    FROM unnest($1::text[], $2::text[]) AS claimed (queue, limit_key)
    JOIN job_key AS key ON key.queue = claimed.queue AND key.limit_key = claimed.limit_key
    LEFT JOIN queue_policy AS policy ON policy.queue = key.queue
),
moved AS (
    DELETE FROM job_parked
    WHERE ctid = ANY (ARRAY(
        SELECT first.tid
        FROM room
        CROSS JOIN LATERAL (
            SELECT ctid AS tid FROM job_parked AS parked
            WHERE parked.queue = room.queue AND parked.limit_key = room.limit_key
            ORDER BY place LIMIT room.jobs
        ) AS first
    ))
    RETURNING queue, limit_key, place, job_id
),
slots AS (
    INSERT INTO job_slot (job_id, queue, limit_key) SELECT job_id, queue, limit_key FROM moved
),
lined AS (
    INSERT INTO job_ready (line_id, place, job_id, since)
    SELECT line_id, nextval('job_place'), id, coalesce($3::timestamptz, now())
    FROM (SELECT job.line_id, job.id FROM moved
          CROSS JOIN LATERAL (SELECT id, line_id FROM job WHERE job.id = moved.job_id OFFSET 0) AS job
          ORDER BY moved.place) AS found
),
spent AS (
    UPDATE job_key AS key
    SET tat = greatest(key.tat, coalesce($3::timestamptz, now()))
              + make_interval(secs => let.jobs / room.key_rate_per_s)
    FROM (SELECT queue, limit_key, count(*) AS jobs FROM moved GROUP BY queue, limit_key) AS let
    JOIN room USING (queue, limit_key)
    WHERE key.queue = let.queue AND key.limit_key = let.limit_key
      AND room.key_rate_per_s IS NOT NULL
)
SELECT queue, count(*) AS jobs FROM moved GROUP BY queue;

-- name: sweep_keys
-- Forgets keys of any workspace that have neither jobs nor a debt.
DELETE FROM job_key AS key
WHERE tat < now() - interval '1 hour'
  AND NOT EXISTS (SELECT FROM job_parked AS parked
                  WHERE parked.queue = key.queue AND parked.limit_key = key.limit_key);

-- name: repair_keys
-- Names again every key that has waiting jobs, should a sweep have met an enqueue under way.
INSERT INTO job_key (queue, limit_key)
SELECT DISTINCT queue, limit_key FROM job_parked
ON CONFLICT DO NOTHING;

-- name: fold
-- Adds the settled changes to the counts. Sums over workspaces, by queue.
WITH mark AS MATERIALIZED (SELECT upto FROM queue_fold FOR UPDATE SKIP LOCKED),
settled AS (
    DELETE FROM queue_delta
    USING mark
    WHERE xid >= mark.upto AND xid < pg_snapshot_xmin(pg_current_snapshot())
    RETURNING queue, ready, scheduled, leased, dead
),
added AS (
    INSERT INTO queue_count AS total (queue, ready, scheduled, leased, dead)
    SELECT queue, sum(ready), sum(scheduled), sum(leased), sum(dead) FROM settled GROUP BY queue
    ON CONFLICT (queue) DO UPDATE
    SET ready = total.ready + excluded.ready, scheduled = total.scheduled + excluded.scheduled,
        leased = total.leased + excluded.leased, dead = total.dead + excluded.dead
)
UPDATE queue_fold SET upto = pg_snapshot_xmin(pg_current_snapshot())
FROM mark
WHERE pg_snapshot_xmin(pg_current_snapshot()) > mark.upto;

-- name: is_leased
-- Whether a job of workspace $1 (null: of none) in queue $2 with the payload $3 is under a lease that
-- lives at $4.
SELECT EXISTS (
    SELECT FROM job_lease AS lease
    CROSS JOIN LATERAL unnest(lease.job_ids, lease.turns) AS held (id, turn)
    CROSS JOIN LATERAL (
        SELECT line_id, turn, payload FROM job WHERE job.id = held.id OFFSET 0
    ) AS job
    JOIN queue_line AS line ON line.id = abs(job.line_id)
    WHERE lease.expires_at > coalesce($4::timestamptz, now())
      AND job.turn = held.turn AND $3 = CASE
          -- It may carry where it stands in a trace before what it says (observe/trace.py).
          WHEN substr(job.payload, 1, 8) = '\x006d747261636501'
          THEN substr(job.payload, 10 + 25 * get_byte(job.payload, 8))
          ELSE job.payload END
      AND line.queue = $2 AND line.workspace_id IS NOT DISTINCT FROM $1::uuid
);

-- name: depth
-- Counts of the queues $1, over all workspaces.
SELECT queue, sum(ready)::bigint AS ready, sum(scheduled)::bigint AS scheduled,
       sum(leased)::bigint AS leased, sum(dead)::bigint AS dead
FROM (
    SELECT queue, ready, scheduled, leased, dead FROM queue_count WHERE queue = ANY ($1::text[])
    UNION ALL
    SELECT queue, ready, scheduled, leased, dead FROM queue_delta
    WHERE xid >= (SELECT upto FROM queue_fold) AND queue = ANY ($1::text[])
) AS change
GROUP BY queue;

-- name: heads
-- Where the lines $1 begin behind the places $2, and since when the first job waits there. Lines of
-- all workspaces: the age is the queue's.
SELECT line.id, head.place, head.since, coalesce($3::timestamptz, now()) AS now
FROM unnest($1::int[], $2::bigint[]) AS line (id, after)
CROSS JOIN LATERAL (
    SELECT place, since FROM job_ready AS ready
    WHERE ready.line_id = line.id AND ready.place > line.after
    ORDER BY ready.line_id, ready.place LIMIT 1
) AS head;

-- name: pause
-- Nothing of queue $1 is leased when $2.
INSERT INTO queue_policy (queue, paused) VALUES ($1, $2)
ON CONFLICT (queue) DO UPDATE SET paused = excluded.paused;

-- name: paused
-- The queues that are paused, for every workspace.
SELECT queue FROM queue_policy WHERE paused;

-- name: limit_keys
-- Rate $2, burst $3 and concurrency $4 of each limit key in queue $1.
INSERT INTO queue_policy (queue, key_rate_per_s, key_burst, key_concurrency)
VALUES ($1, $2, $3, $4)
ON CONFLICT (queue) DO UPDATE
SET key_rate_per_s = excluded.key_rate_per_s, key_burst = excluded.key_burst,
    key_concurrency = excluded.key_concurrency;

-- name: list_dead
-- Up to $4 buried jobs of workspace $1 (null: of none), of queue $2 or all, below id $3.
SELECT dead.*, line.queue, line.workspace_id
FROM job_dead AS dead
JOIN queue_line AS line ON line.id = abs(dead.line_id)
WHERE line.workspace_id IS NOT DISTINCT FROM $1::uuid
  AND ($2::text IS NULL OR line.queue = $2)
  AND ($3::bigint IS NULL OR dead.id < $3)
ORDER BY dead.id DESC
LIMIT $4;

-- name: redrive
-- Puts the buried jobs $2 of workspace $1 back, due at $3, unless their unique key stands again.
WITH chosen AS MATERIALIZED (
    SELECT dead.*, line.queue
    FROM job_dead AS dead
    JOIN queue_line AS line ON line.id = abs(dead.line_id)
    WHERE dead.id = ANY ($2::bigint[]) AND line.workspace_id IS NOT DISTINCT FROM $1::uuid
    ORDER BY dead.id
    FOR UPDATE OF dead
),
back AS (
    INSERT INTO job (id, line_id, turn, max_attempts, enqueued_at, kind, unique_key, limit_key,
                     payload)
    SELECT id, abs(line_id), turn + 1, max_attempts, enqueued_at, kind, unique_key, limit_key,
           payload
    FROM chosen
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
    RETURNING id
),
gone AS (
    DELETE FROM job_dead WHERE id IN (SELECT id FROM back)
),
scheduled AS (
    INSERT INTO job_scheduled (run_at, job_id) SELECT coalesce($3::timestamptz, now()), id FROM back
),
counted AS (
    INSERT INTO queue_delta (queue, dead, scheduled)
    SELECT chosen.queue, -count(*), count(*) FROM back JOIN chosen USING (id) GROUP BY chosen.queue
)
SELECT back.id, chosen.queue FROM back JOIN chosen USING (id);

-- name: discard
-- Removes the buried jobs $2 of workspace $1.
WITH gone AS (
    DELETE FROM job_dead AS dead
    USING queue_line AS line
    WHERE line.id = abs(dead.line_id) AND dead.id = ANY ($2::bigint[])
      AND line.workspace_id IS NOT DISTINCT FROM $1::uuid
    RETURNING dead.id, line.queue
),
counted AS (
    INSERT INTO queue_delta (queue, dead) SELECT queue, -count(*) FROM gone GROUP BY queue
)
SELECT id FROM gone;

-- name: add_schedules
-- Makes the schedules $1 known, first due at $2.
INSERT INTO queue_schedule (name, next_at)
SELECT name, next_at FROM unnest($1::text[], $2::timestamptz[]) AS given (name, next_at)
ON CONFLICT (name) DO NOTHING;

-- name: due_schedules
-- Claims the schedules among $1 that are due at $2; another scheduler meanwhile sees none of them.
SELECT name, next_at, coalesce($2::timestamptz, now()) AS now FROM queue_schedule
WHERE name = ANY ($1::text[]) AND next_at <= coalesce($2::timestamptz, now())
FOR UPDATE SKIP LOCKED;

-- name: move_schedules
-- The schedules $1 are due next at $2.
UPDATE queue_schedule AS schedule SET next_at = given.next_at
FROM unnest($1::text[], $2::timestamptz[]) AS given (name, next_at)
WHERE schedule.name = given.name;
