-- name: homes_of
-- Those of the normalised addresses $1 at which mail is taken in this database, itself or by its
-- domain; asked on the copy of another region's database, of every workspace of it.
SELECT wanted.address
FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted (address, base, domain)
WHERE EXISTS (
    SELECT FROM address
    WHERE address.address IN (wanted.address, wanted.base)
      AND (address.expires_at IS NULL OR address.expires_at > now())
) OR EXISTS (
    SELECT FROM receiving_domain
    WHERE receiving_domain.name = wanted.domain AND receiving_domain.proved_at IS NOT NULL
);

-- name: copy_state
-- How the copy of a region's database stands: whether it still follows, what it has of the log but
-- has not replayed, and the last commit that it has.
SELECT pg_is_in_recovery() AS follows,
       coalesce((SELECT status FROM pg_stat_wal_receiver), '') = 'streaming' AS streams,
       coalesce(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)::bigint
           AS unreplayed_bytes,
       pg_last_xact_replay_timestamp() AS last_commit_at,
       coalesce(pg_last_wal_replay_lsn()::text, '') AS position;

-- name: primary_of
-- Where the copy streams from; nothing when it does not, or its user may not see that.
SELECT sender_host AS host, sender_port AS port
FROM pg_stat_wal_receiver WHERE status = 'streaming' AND sender_host IS NOT NULL;

-- name: promote
-- The copy becomes a primary; true once it is one.
SELECT pg_promote(true, $1::integer);

-- name: terms
-- In which term each region is, as far as this database knows.
SELECT region, epoch, site, position, taken_at FROM region_term ORDER BY region;

-- name: begin_term
-- A site takes over the region $1: term $2, the site $3, the log replayed up to $4.
INSERT INTO region_term (region, epoch, site, position) VALUES ($1, $2, $3, $4)
ON CONFLICT (region) DO UPDATE
SET epoch = excluded.epoch, site = excluded.site, position = excluded.position, taken_at = now()
WHERE region_term.epoch < excluded.epoch;
