-- name: draw_ids
-- $1 ids for jobs, from the sequence of all of them.
SELECT array_agg(nextval('job_place')) AS ids FROM generate_series(1, $1::int);

-- name: put
-- Puts jobs on their way to the log: ids $1, queues $2, keys $3, records $4 (each names its
-- workspace); counts by queue $5, $6.
SELECT kafka_put($1::bigint[], $2::text[], $3::int[], $4::bytea[], $5::text[], $6::int[]) AS ids;

-- name: put_unique
-- Claims the unique keys $8 (queue, newline, key) and puts those jobs on their way that got theirs: ids
-- $1, queues $2, keys $3, records $4 (each names its workspace), lines $5, max_attempts $6, kinds $7;
-- at $9. A claim is a row of `job` without a place: the log has what is to be done.
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest($1::bigint[], $2::text[], $3::int[], $4::bytea[], $5::int[], $6::smallint[],
                $7::text[], $8::text[])
         AS given (id, queue, key, record, line_id, most, kind, unique_key)
),
claimed AS (
    INSERT INTO job (id, line_id, max_attempts, enqueued_at, kind, payload, unique_key)
    SELECT id, line_id, most, coalesce($9::timestamptz, now()), kind, '', unique_key
    FROM input
    ORDER BY unique_key, id
    ON CONFLICT (unique_key) WHERE unique_key IS NOT NULL DO NOTHING
    RETURNING id
),
put AS (
    INSERT INTO kafka_outbox (id, queue, key, record)
    SELECT id, queue, key, record FROM input JOIN claimed USING (id)
),
counted AS (
    INSERT INTO queue_delta (queue, ready)
    SELECT queue, count(*) FROM input JOIN claimed USING (id) GROUP BY queue
)
SELECT array_agg(id) AS ids FROM claimed;

-- name: next_batch
-- A turn of the drain by $1, for all workspaces: what it has sent $2; queues $3 with partitions $4 and
-- spreads $5; rows behind $6, at most $7; held for $8 seconds.
SELECT * FROM kafka_next_batch($1::uuid, $2::bigint[], $3::text[], $4::int[], $5::int[], $6::bigint,
                               $7::int, $8::float8);

-- name: add_cursors
-- Begins the partitions 0 to $2 - 1 of topic $1, of all workspaces, that nobody has begun.
INSERT INTO kafka_cursor (topic, part) SELECT $1, part FROM generate_series(0, $2::int - 1) AS part
ON CONFLICT DO NOTHING;

-- name: cursors
-- How far the partitions of the topics $1 are given out, for all workspaces.
SELECT topic, part, claimed, batch, seen FROM kafka_cursor WHERE topic = ANY ($1::text[]);

-- name: claim
-- Gives out parts of the log of queue $1 (topic $2): partitions $3 from $4 to $5 with batches $6 and
-- what was seen of them $7; ranges $8 to $11; to worker $12 for $13 seconds after $14. Jobs of all
-- workspaces.
SELECT * FROM kafka_claim($1, $2, $3::int[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
                          $8::int[], $9::bigint[], $10::int[], $11::bytea[], $12, $13, $14);

-- name: extend
-- Prolongs the leases $3 to $4 seconds after $5; which of the jobs with tokens $1 and numbers $2 are
-- still held under them.
WITH kept AS (
    UPDATE kafka_lease
    SET expires_at = coalesce($5::timestamptz, now()) + make_interval(secs => $4::float8)
    WHERE token = ANY ($3::bigint[])
    RETURNING token, jobs, done
)
SELECT given.token, given.number
FROM unnest($1::bigint[], $2::int[]) AS given (token, number)
JOIN kept ON kept.token = given.token
WHERE given.number < kept.jobs AND NOT given.number <@ kept.done;

-- name: complete
-- Finishes the jobs with tokens $1 and numbers $2; those that claimed a unique key (tokens $3, numbers
-- $4, ids $5) give it up. The token says whose job it is, whatever the workspace.
WITH mine AS MATERIALIZED (SELECT token, number FROM kafka_end($1::bigint[], $2::int[])),
freed AS (
    DELETE FROM job
    WHERE id = ANY (ARRAY(
        SELECT claim.id
        FROM unnest($3::bigint[], $4::int[], $5::bigint[]) AS claim (token, number, id)
        JOIN mine USING (token, number)
    ))
)
SELECT token, number FROM mine;

-- name: give_back
-- Gives back jobs (tokens $1, numbers $2), which go on in PostgreSQL: ids $3, lines $4 (each of one
-- workspace), max_attempts $5, enqueued $6, kinds $7, payloads $8; due at $9 seconds after $10; $11: 1
-- counts the attempt, 0 does not; $12 the error. Who claimed a unique key has his row already.
WITH mine AS MATERIALIZED (SELECT token, number FROM kafka_end($1::bigint[], $2::int[])),
back AS (
    INSERT INTO job (id, line_id, turn, attempts, max_attempts, enqueued_at, kind, payload, error)
    SELECT given.id, given.line_id, 1, $11::int, given.most, given.enqueued_at, given.kind,
           given.payload, $12
    FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::int[], $5::smallint[], $6::timestamptz[],
                $7::text[], $8::bytea[])
         AS given (token, number, id, line_id, most, enqueued_at, kind, payload)
    JOIN mine USING (token, number)
    ON CONFLICT (id) DO UPDATE
    SET turn = excluded.turn, attempts = excluded.attempts, payload = excluded.payload,
        error = excluded.error
    RETURNING id, line_id
),
scheduled AS (
    INSERT INTO job_scheduled (run_at, job_id)
    SELECT coalesce($10::timestamptz, now()) + make_interval(secs => $9::float8), id FROM back
),
counted AS (
    INSERT INTO queue_delta (queue, scheduled)
    SELECT line.queue, count(*) FROM back JOIN queue_line AS line ON line.id = back.line_id
    GROUP BY line.queue
)
SELECT array_agg(id) AS ids FROM back;

-- name: bury
-- Dead-letters jobs (tokens $1, numbers $2): ids $3, lines $4 (each of one workspace), max_attempts
-- $5, enqueued $6, kinds $7, payloads $8; at $9 with the error $10. Unique keys go along.
WITH mine AS MATERIALIZED (SELECT token, number FROM kafka_end($1::bigint[], $2::int[])),
held AS MATERIALIZED (
    SELECT given.*
    FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::int[], $5::smallint[], $6::timestamptz[],
                $7::text[], $8::bytea[])
         AS given (token, number, id, line_id, most, enqueued_at, kind, payload)
    JOIN mine USING (token, number)
),
freed AS (
    DELETE FROM job WHERE id = ANY (ARRAY(SELECT id FROM held)) RETURNING id, unique_key
),
buried AS (
    INSERT INTO job_dead (id, line_id, turn, attempts, crashes, max_attempts, enqueued_at, buried_at,
                          kind, unique_key, error, payload)
    SELECT id, line_id, 0, 1, 0, most, enqueued_at, coalesce($9::timestamptz, now()), kind,
           freed.unique_key, $10, payload
    FROM held LEFT JOIN freed USING (id)
    RETURNING id, line_id
),
counted AS (
    INSERT INTO queue_delta (queue, dead)
    SELECT line.queue, count(*) FROM buried JOIN queue_line AS line ON line.id = buried.line_id
    GROUP BY line.queue
)
SELECT array_agg(id) AS ids FROM buried;

-- name: take_over
-- Takes up to 20 leases that ran out before $1 from their workers, of all workspaces: their tokens are
-- void from now on. Whoever takes them over has $2 seconds; dies he too, another does.
UPDATE kafka_lease AS lease
SET token = nextval('job_token'), worker = 'rescue',
    expires_at = coalesce($1::timestamptz, now()) + make_interval(secs => $2::float8)
WHERE lease.token IN (
    SELECT token FROM kafka_lease WHERE expires_at < coalesce($1::timestamptz, now())
    ORDER BY token LIMIT 20 FOR UPDATE SKIP LOCKED
)
RETURNING lease.token, lease.queue, lease.topic, lease.jobs, lease.parts, lease.firsts, lease.starts,
          lease.counts, lease.done;

-- name: rescue
-- Jobs that were taken over (tokens $1, numbers $2) go on in PostgreSQL as suspects, due at $9; one
-- with a single attempt is buried with the error $10. Ids $3, lines $4 (each of one workspace),
-- max_attempts $5, enqueued $6, kinds $7, payloads $8.
WITH mine AS MATERIALIZED (SELECT token, number FROM kafka_end($1::bigint[], $2::int[])),
held AS MATERIALIZED (
    SELECT given.*, coalesce($9::timestamptz, now()) AS at
    FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::int[], $5::smallint[], $6::timestamptz[],
                $7::text[], $8::bytea[])
         AS given (token, number, id, line_id, most, enqueued_at, kind, payload)
    JOIN mine USING (token, number)
),
back AS (
    INSERT INTO job (id, line_id, turn, attempts, crashes, max_attempts, enqueued_at, kind, payload,
                     error)
    SELECT id, -line_id, 1, 1, 1, most, enqueued_at, kind, payload, $10 FROM held WHERE most > 1
    ON CONFLICT (id) DO UPDATE
    SET line_id = excluded.line_id, turn = 1, attempts = 1, crashes = 1,
        payload = excluded.payload, error = excluded.error
    RETURNING id, line_id
),
scheduled AS (
    INSERT INTO job_scheduled (run_at, job_id) SELECT coalesce($9::timestamptz, now()), id FROM back
),
freed AS (
    DELETE FROM job WHERE id = ANY (ARRAY(SELECT id FROM held WHERE most <= 1))
    RETURNING id, unique_key
),
buried AS (
    INSERT INTO job_dead (id, line_id, turn, attempts, crashes, max_attempts, enqueued_at, buried_at,
                          kind, unique_key, error, payload)
    SELECT id, line_id, 0, 1, 1, most, enqueued_at, at, kind, freed.unique_key, $10, payload
    FROM held LEFT JOIN freed USING (id)
    WHERE most <= 1
    RETURNING id, line_id
),
counted AS (
    INSERT INTO queue_delta (queue, scheduled, dead)
    SELECT line.queue, sum(ended.again), count(*) - sum(ended.again)
    FROM (SELECT -line_id AS line_id, 1 AS again FROM back
          UNION ALL SELECT line_id, 0 FROM buried) AS ended
    JOIN queue_line AS line ON line.id = ended.line_id
    GROUP BY line.queue
)
SELECT count(*) AS jobs FROM held;

-- name: low_water
-- Below which offset everything of the topics $1 is done: behind it lies the first job that is held,
-- or what is not given out. Of all workspaces.
WITH open AS (
    SELECT lease.topic, range.part,
           min(range.first - range.start + lower(
               int4multirange(int4range(range.start, range.start + range.count)) - lease.done
           )) AS first
    FROM kafka_lease AS lease
    CROSS JOIN LATERAL unnest(lease.parts, lease.firsts, lease.starts, lease.counts)
               AS range (part, first, start, count)
    WHERE lease.topic = ANY ($1::text[])
    GROUP BY lease.topic, range.part
)
SELECT cursor.topic, cursor.part, least(cursor.claimed, open.first) AS low
FROM kafka_cursor AS cursor
LEFT JOIN open ON open.topic = cursor.topic AND open.part = cursor.part
WHERE cursor.topic = ANY ($1::text[]);

-- name: is_leased
-- Whether a job of queue $1 with the digest $2 (of its workspace and payload) is under a lease that
-- lives at $3.
SELECT EXISTS (
    SELECT FROM kafka_lease AS lease
    CROSS JOIN LATERAL generate_series(0, lease.jobs - 1) AS number
    WHERE lease.queue = $1 AND lease.expires_at > coalesce($3::timestamptz, now())
      AND position($2::bytea IN lease.digests) > 0
      AND substring(lease.digests FROM number * 8 + 1 FOR 8) = $2::bytea
      AND NOT number <@ lease.done
);
