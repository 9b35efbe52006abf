-- name: note_sites
-- What a worker has learnt of sites $1…: the later share, the longer pause. What was noted before a
-- person let a site go on does not pause it again.
INSERT INTO shaping_site AS site (
    key, source, place, receiver, share, slowed_at, paused_until, why, refusals, probe_at,
    accepted, later, never, unknown, answers, noted_at, updated_at
)
SELECT new.key, new.source, new.place, new.receiver, new.share, new.slowed_at, new.paused_until,
       new.why, new.refusals, new.probe_at, new.accepted, new.later, new.never, new.unknown,
       new.answers::jsonb, new.noted_at, $17
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::float8[], $6::timestamptz[],
    $7::timestamptz[], $8::text[], $9::integer[], $10::timestamptz[], $11::bigint[], $12::bigint[],
    $13::bigint[], $14::bigint[], $15::text[], $16::timestamptz[]
) AS new (
    key, source, place, receiver, share, slowed_at, paused_until, why, refusals, probe_at,
    accepted, later, never, unknown, answers, noted_at
)
ORDER BY new.key
ON CONFLICT (key) DO UPDATE SET
    receiver = excluded.receiver,
    share = CASE WHEN excluded.slowed_at >= coalesce(site.slowed_at, '-infinity')
                 THEN excluded.share ELSE site.share END,
    slowed_at = greatest(site.slowed_at, excluded.slowed_at),
    paused_until = CASE WHEN excluded.noted_at > coalesce(site.resumed_at, '-infinity')
                        THEN greatest(site.paused_until, excluded.paused_until)
                        ELSE site.paused_until END,
    why = CASE WHEN excluded.why <> ''
                AND excluded.paused_until IS NOT DISTINCT FROM
                    greatest(site.paused_until, excluded.paused_until)
               THEN excluded.why ELSE site.why END,
    refusals = excluded.refusals,
    probe_at = excluded.probe_at,
    accepted = site.accepted + excluded.accepted,
    later = site.later + excluded.later,
    never = site.never + excluded.never,
    unknown = site.unknown + excluded.unknown,
    answers = CASE WHEN excluded.answers = '[]' THEN site.answers ELSE (
        SELECT jsonb_agg(one.answer ORDER BY one.at)
        FROM jsonb_array_elements(excluded.answers || site.answers)
             WITH ORDINALITY AS one (answer, at)
        WHERE one.at <= 5
    ) END,
    noted_at = coalesce(excluded.noted_at, site.noted_at),
    updated_at = excluded.updated_at;

-- name: add_events
-- What happened, told once.
INSERT INTO shaping_event (id, key, kind, rule, answer, share, until, text)
SELECT * FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::float8[], $7::timestamptz[],
    $8::text[]
)
ON CONFLICT DO NOTHING;

-- name: read_news
-- Sites of which something was noted or said since $1; at most $2.
SELECT key, place, receiver, share, slowed_at, paused_until, why, resumed_at
FROM shaping_site
WHERE noted_at >= $1 OR resumed_at >= $1
LIMIT $2;

-- name: read_held
-- Sites that are paused or slower at $1, for a worker that begins; at most $2.
SELECT key, place, receiver, share, slowed_at, paused_until, why, resumed_at
FROM shaping_site
WHERE noted_at IS NOT NULL AND (paused_until > $1 OR share < 1)
ORDER BY noted_at DESC
LIMIT $2;

-- name: list_sites
-- Sites above key $1, of which $2 stands in the name (empty: all), only held ones with $3; $4 of
-- them. With what workers have of their connections now.
SELECT site.*,
       coalesce(lease.held, 0) AS connections,
       coalesce(lease.workers, 0) AS workers
FROM shaping_site AS site
LEFT JOIN LATERAL (
    SELECT sum(held)::bigint AS held, count(*) FILTER (WHERE held > 0) AS workers
    FROM connection_lease
    WHERE connection_lease.key = site.key AND void_at > now()
) AS lease ON true
WHERE site.key > $1
  AND ($2 = '' OR position($2 IN site.place) > 0 OR position($2 IN site.receiver) > 0)
  AND (NOT $3 OR site.paused_until > now() OR site.share < 1 OR site.refusals >= $5)
ORDER BY site.key
LIMIT $4;

-- name: read_site
-- One site by its key $1.
SELECT site.*,
       coalesce(lease.held, 0) AS connections,
       coalesce(lease.workers, 0) AS workers
FROM shaping_site AS site
LEFT JOIN LATERAL (
    SELECT sum(held)::bigint AS held, count(*) FILTER (WHERE held > 0) AS workers
    FROM connection_lease
    WHERE connection_lease.key = site.key AND void_at > now()
) AS lease ON true
WHERE site.key = $1;

-- name: lock_place
-- The sites of place $1, from every source, before they are changed.
SELECT key, paused_until, why, share FROM shaping_site WHERE place = $1 ORDER BY key FOR UPDATE;

-- name: pause_sites
-- A person pauses sites $1 until $2, because of $3.
UPDATE shaping_site
SET paused_until = $2, why = $3, noted_at = now(), updated_at = now()
WHERE key = ANY($1::text[]);

-- name: resume_sites
-- A person lets sites $1 go on.
UPDATE shaping_site
SET paused_until = NULL, why = '', refusals = 0, probe_at = NULL, resumed_at = now(),
    updated_at = now()
WHERE key = ANY($1::text[]);

-- name: list_events
-- What happened to site $1 (empty: to any), newest first, before $2; at most $3.
SELECT id, key, kind, rule, answer, share, until, text
FROM shaping_event
WHERE ($1 = '' OR key = $1) AND id < $2
ORDER BY id DESC
LIMIT $3;

-- name: sweep_events
-- What is older than id $1.
DELETE FROM shaping_event WHERE id < $1;

-- name: sweep_sites
-- Sites that nobody has written to since $1 and that nothing holds.
DELETE FROM shaping_site
WHERE updated_at < $1 AND coalesce(paused_until, '-infinity') < now();
