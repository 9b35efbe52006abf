-- Adding plain jobs, with its plan kept by the server: a statement sent as text, behind another one in
-- the same message, would be planned each time (docs/decisions/0011-one-message-a-group.md).
--
-- Jobs that are due now and have no key: their lines, kinds, payloads and max_attempts; `at` is the
-- time; counts by queue. The transaction gets its id before the places are drawn: whoever follows a
-- line relies on it. Returns the ids in order.
CREATE FUNCTION enqueue_jobs(
    lines int[], kinds text[], payloads bytea[], attempts smallint[], at timestamptz,
    queues text[], counts int[]
)
RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    ids bigint[];
BEGIN
    WITH own AS MATERIALIZED (SELECT pg_current_xact_id() AS xid),
    input AS MATERIALIZED (
        SELECT nextval('job_place') AS id, given.*
        FROM own, unnest(lines, kinds, payloads, attempts)
             WITH ORDINALITY AS given (line_id, kind, payload, max_attempts, nth)
    ),
    added AS (
        INSERT INTO job (id, line_id, max_attempts, enqueued_at, kind, payload)
        SELECT input.id, line_id, max_attempts, coalesce(at, now()), kind, payload FROM input
    ),
    lined AS (
        INSERT INTO job_ready (line_id, place, job_id, since)
        SELECT line_id, input.id, input.id, coalesce(at, now()) FROM input
    ),
    counted AS (
        INSERT INTO queue_delta (queue, ready)
        SELECT queue, jobs FROM unnest(queues, counts) AS count (queue, jobs)
    )
    SELECT array_agg(input.id ORDER BY nth) INTO STRICT ids FROM input;
    RETURN ids;
END
$$;
