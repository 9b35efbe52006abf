-- name: add_counts
-- What went on day $1… from addresses to groups of receivers, and how it was answered.
INSERT INTO source_count AS held (day, name, receivers, mails, answers, bad)
SELECT * FROM unnest($1::date[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
    AS new (day, name, receivers, mails, answers, bad)
ORDER BY 1, 2, 3
ON CONFLICT (day, name, receivers) DO UPDATE SET
    mails = held.mails + excluded.mails,
    answers = held.answers + excluded.answers,
    bad = held.bad + excluded.bad;

-- name: read_counts
-- What went on day $1 from addresses $2.
SELECT name, receivers, mails, answers, bad
FROM source_count
WHERE day = $1 AND name = ANY($2::text[]);

-- name: read_states
-- What became of addresses $1.
SELECT name, lost_days, paused_until, why FROM source_state WHERE name = ANY($1::text[]);

-- name: pause_source
-- Address $1 is paused until $3 and has lost $2 days in all, unless another worker has said so.
INSERT INTO source_state AS held (name, lost_days, paused_until, why, changed_at)
VALUES ($1, $2, $3, $4, now())
ON CONFLICT (name) DO UPDATE SET
    lost_days = excluded.lost_days, paused_until = excluded.paused_until, why = excluded.why,
    changed_at = excluded.changed_at
WHERE held.paused_until IS NULL OR held.paused_until < excluded.paused_until;

-- name: sweep_counts
-- What is older than day $1.
DELETE FROM source_count WHERE day < $1;
