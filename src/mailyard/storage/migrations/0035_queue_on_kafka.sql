-- What the queue on Kafka keeps here (docs/decisions/0030-kafka.md). The log holds the jobs; these
-- tables say how far it is given out and to whom, so that a completion is fenced and can commit with
-- its results, and hold what has not reached the log yet.
--
--   enqueue   inserts into kafka_outbox with the caller's transaction; the drain moves it to the log
--   lease     moves kafka_cursor on, inserts one row for the whole batch
--   complete  marks the jobs done in that row, and deletes it with the last of them

-- Jobs on their way to the log. `key` chooses the partition.
CREATE TABLE kafka_outbox (
    id      bigint PRIMARY KEY,
    queue   text NOT NULL,
    key     integer NOT NULL,
    record  bytea NOT NULL
) WITH (vacuum_truncate = off, autovacuum_vacuum_scale_factor = 0.05,
        autovacuum_vacuum_threshold = 10000, autovacuum_vacuum_cost_delay = 0);

-- Who drains, and the batch that is on its way: whoever takes over sends just this one again, to the
-- same partitions, so that the copies can be told.
CREATE TABLE kafka_drain (
    holder  uuid,
    until   timestamptz NOT NULL DEFAULT '-infinity',
    number  bigint NOT NULL DEFAULT 0,
    ids     bigint[],
    parts   integer[]
) WITH (fillfactor = 50, autovacuum_vacuum_cost_delay = 0);
INSERT INTO kafka_drain DEFAULT VALUES;

-- How far a partition is given out; of the last batch of the outbox that was seen in it (`batch`),
-- which of its records (`seen`): what comes of older batches, or once more of this one, is a copy.
CREATE TABLE kafka_cursor (
    topic    text NOT NULL,
    part     integer NOT NULL,
    claimed  bigint NOT NULL DEFAULT 0,
    batch    bigint NOT NULL DEFAULT 0,
    seen     int4multirange NOT NULL DEFAULT '{}',
    PRIMARY KEY (topic, part)
) WITH (fillfactor = 50, autovacuum_vacuum_cost_delay = 0);

-- A leased batch of the log. Its jobs are numbered from 0; the nth range begins at number `starts`
-- with the offset `firsts` of partition `parts`. `digests` has 8 bytes a job.
CREATE TABLE kafka_lease (
    token       bigint PRIMARY KEY,
    queue       text NOT NULL,
    topic       text NOT NULL,
    worker      text NOT NULL,
    expires_at  timestamptz NOT NULL,
    jobs        integer NOT NULL,
    parts       integer[] NOT NULL,
    firsts      bigint[] NOT NULL,
    starts      integer[] NOT NULL,
    counts      integer[] NOT NULL,
    digests     bytea NOT NULL,
    done        int4multirange NOT NULL DEFAULT '{}'
) WITH (fillfactor = 70, vacuum_truncate = off, autovacuum_vacuum_cost_delay = 0);

-- Puts jobs (ids, queues, keys, records) on their way; counts by queue.
CREATE FUNCTION kafka_put(
    ids bigint[], queues text[], keys int[], records bytea[], counted text[], counts int[]
)
RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO kafka_outbox (id, queue, key, record) SELECT * FROM unnest(ids, queues, keys, records);
    INSERT INTO queue_delta (queue, ready) SELECT * FROM unnest(counted, counts);
    RETURN ids;
END
$$;

-- One turn of the drain: ends the batch of `who` (its jobs `sent` are in the log) and gives out the
-- next, of the queues whose topics have `sizes` partitions, a key's jobs over `spreads` of them; or
-- the batch that another left behind. Rows below `after` are taken as seen. Whose turn it is not gets
-- `mine` false. It is held for `hold_s` by the machine's time, for it is about living processes.
CREATE FUNCTION kafka_next_batch(
    who uuid, sent bigint[], queues text[], sizes int[], spreads int[], after bigint, most int,
    hold_s float8,
    OUT mine boolean, OUT batch bigint, OUT job_ids bigint[], OUT job_queues text[],
    OUT job_parts int[], OUT records bytea[]
)
LANGUAGE plpgsql AS $$
DECLARE
    now_held kafka_drain;
    before bigint;
BEGIN
    mine := false;
    SELECT * INTO now_held FROM kafka_drain FOR UPDATE SKIP LOCKED;
    IF NOT FOUND OR (now_held.holder <> who AND now_held.until > clock_timestamp()) THEN
        RETURN;
    END IF;
    mine := true;
    IF now_held.holder = who AND now_held.ids IS NOT NULL THEN
        WITH gone AS (DELETE FROM kafka_outbox WHERE id = ANY (sent) RETURNING queue)
        INSERT INTO queue_delta (queue, ready) SELECT queue, -count(*) FROM gone GROUP BY queue;
        now_held.ids := NULL;
    END IF;
    IF now_held.ids IS NULL THEN
        -- Numbers follow the time: a database that was put back to an older state must not give those
        -- out again that lie in the log already.
        before := now_held.number;
        now_held.number :=
            greatest(before + 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint);
        SELECT array_agg(next.id ORDER BY next.id),
               array_agg(mod(next.key + mod(now_held.number, size.spread)::int, size.size)
                         ORDER BY next.id)
        INTO now_held.ids, now_held.parts
        FROM (SELECT id, queue, key FROM kafka_outbox
              WHERE id > after AND queue = ANY (queues) ORDER BY id LIMIT most) AS next
        JOIN unnest(queues, sizes, spreads) AS size (queue, size, spread)
             ON size.queue = next.queue;
    END IF;
    batch := now_held.number;
    IF now_held.ids IS NULL THEN  -- nothing to send: only a holder who stays need be written
        batch := before;
        IF now_held.holder = who AND sent = '{}'
           AND now_held.until > clock_timestamp() + make_interval(secs => hold_s / 2) THEN
            RETURN;
        END IF;
    END IF;
    UPDATE kafka_drain
    SET holder = who, until = clock_timestamp() + make_interval(secs => hold_s), number = batch,
        ids = now_held.ids, parts = now_held.parts;
    SELECT array_agg(put.id ORDER BY put.id), array_agg(put.queue ORDER BY put.id),
           array_agg(way.part ORDER BY put.id), array_agg(put.record ORDER BY put.id)
    INTO job_ids, job_queues, job_parts, records
    FROM unnest(now_held.ids, now_held.parts) AS way (id, part)
    JOIN kafka_outbox AS put ON put.id = way.id;
END
$$;

-- Gives out the log of topic `t`: each partition of `moved_parts` from `froms` to `uptos`, if nobody
-- has done so before; of them the jobs of the ranges (`part`, first offset, count, digests). Says which
-- partitions it were. A paused queue gives nothing.
CREATE FUNCTION kafka_claim(
    q text, t text, moved_parts int[], froms bigint[], uptos bigint[], batches bigint[], seens text[],
    range_parts int[], range_firsts bigint[], range_counts int[], range_digests bytea[],
    who text, lease_s float8, at timestamptz,
    OUT lease_token bigint, OUT until timestamptz, OUT got int[]
)
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM queue_policy WHERE queue = q AND paused) THEN
        RETURN;
    END IF;
    PERFORM FROM kafka_cursor AS c WHERE c.topic = t AND c.part = ANY (moved_parts)
    ORDER BY c.part FOR UPDATE;
    WITH moved AS (
        UPDATE kafka_cursor AS c SET claimed = g.upto, batch = g.batch, seen = g.seen::int4multirange
        FROM unnest(moved_parts, froms, uptos, batches, seens) AS g (part, since, upto, batch, seen)
        WHERE c.topic = t AND c.part = g.part AND c.claimed = g.since
        RETURNING c.part
    )
    SELECT coalesce(array_agg(part), '{}') INTO got FROM moved;
    until := coalesce(at, now()) + make_interval(secs => lease_s);
    WITH taken AS (
        SELECT r.*, (sum(r.count) OVER (ORDER BY nth) - r.count)::int AS start
        FROM unnest(range_parts, range_firsts, range_counts, range_digests)
             WITH ORDINALITY AS r (part, first, count, digest, nth)
        WHERE r.part = ANY (got)
    )
    INSERT INTO kafka_lease (token, queue, topic, worker, expires_at, jobs, parts, firsts, starts,
                             counts, digests)
    SELECT nextval('job_token'), q, t, who, until, sum(taken.count), array_agg(part ORDER BY nth),
           array_agg(first ORDER BY nth), array_agg(start ORDER BY nth),
           array_agg(taken.count ORDER BY nth), string_agg(digest, '' ORDER BY nth)
    FROM taken
    HAVING count(*) > 0
    RETURNING token INTO lease_token;
    IF lease_token IS NOT NULL THEN
        INSERT INTO queue_delta (queue, leased)
        SELECT q, jobs FROM kafka_lease WHERE token = lease_token;
    END IF;
END
$$;

-- Marks jobs (by token and number) done; those that were held and not done before. The lease goes with
-- its last job.
CREATE FUNCTION kafka_end(tokens bigint[], numbers int[])
RETURNS TABLE (token bigint, number int) LANGUAGE plpgsql AS $$
DECLARE
    held kafka_lease;
    fresh int[];
    ended int4multirange;
BEGIN
    FOR held IN
        SELECT * FROM kafka_lease AS lease WHERE lease.token = ANY (tokens)
        ORDER BY lease.token FOR UPDATE
    LOOP
        SELECT array_agg(DISTINCT given.number) INTO fresh
        FROM unnest(tokens, numbers) AS given (token, number)
        WHERE given.token = held.token AND given.number >= 0 AND given.number < held.jobs
          AND NOT given.number <@ held.done;
        CONTINUE WHEN fresh IS NULL;
        SELECT held.done + range_agg(int4range(each, each + 1)) INTO ended FROM unnest(fresh) AS each;
        IF ended @> int4range(0, held.jobs) THEN
            DELETE FROM kafka_lease AS lease WHERE lease.token = held.token;
        ELSE
            UPDATE kafka_lease AS lease SET done = ended WHERE lease.token = held.token;
        END IF;
        INSERT INTO queue_delta (queue, leased) VALUES (held.queue, -cardinality(fresh));
        RETURN QUERY SELECT held.token, unnest(fresh);
    END LOOP;
END
$$;
