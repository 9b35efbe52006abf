-- Domains that a workspace sends from, and their DKIM keys.

-- name: add_domain
-- Adds the domain $3 of workspace $1 as $2, with the return-path $4. No row when the workspace has
-- it already.
INSERT INTO domain (id, workspace_id, name, return_path) VALUES ($2, $1, $3, $4)
ON CONFLICT (workspace_id, name) DO NOTHING
RETURNING id;

-- name: add_keys
-- Adds keys to the domain $2 of workspace $1: ids $3, selectors $4, algorithms $5, records $6,
-- sealed private keys $7.
INSERT INTO dkim_key (id, workspace_id, domain_id, selector, algorithm, record, sealed_key, state)
SELECT id, $1, $2, selector, algorithm, record, sealed_key, 'waiting'
FROM unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::bytea[])
    AS made (id, selector, algorithm, record, sealed_key);

-- name: get_domain
-- One domain.
SELECT id, workspace_id, name, return_path, return_path_ready, verdicts, checked_at
FROM domain WHERE workspace_id = $1 AND id = $2;

-- name: hold_domain
-- One domain; until the end of the transaction nobody else changes its keys.
SELECT id, workspace_id, name FROM domain WHERE workspace_id = $1 AND id = $2 FOR UPDATE;

-- name: list_domains
-- Newest first, ids below $2.
SELECT id, workspace_id, name, return_path, return_path_ready, verdicts, checked_at
FROM domain
WHERE workspace_id = $1 AND id < $2
ORDER BY id DESC LIMIT $3;

-- name: remove_domain
-- Takes a domain away, its keys with it.
DELETE FROM domain WHERE workspace_id = $1 AND id = $2 RETURNING id;

-- name: list_keys
-- The keys of the domains $2, oldest first.
SELECT id, domain_id, selector, algorithm, record, state, finding, looked_at, retired_at
FROM dkim_key
WHERE workspace_id = $1 AND domain_id = ANY($2::uuid[])
ORDER BY id;

-- name: note_looks
-- What a look at DNS found: keys $3 of the domain $2 of workspace $1, findings $4, whether the record
-- stands $5, at $6. A key whose record stands begins to sign.
UPDATE dkim_key
SET finding = seen.finding,
    looked_at = $6,
    state = CASE WHEN dkim_key.state = 'waiting' AND seen.stands THEN 'signing'
                 ELSE dkim_key.state END
FROM unnest($3::uuid[], $4::text[], $5::boolean[]) AS seen (id, finding, stands)
WHERE dkim_key.workspace_id = $1 AND dkim_key.domain_id = $2 AND dkim_key.id = seen.id
  AND dkim_key.state <> 'retired';

-- name: set_return_path
-- Another return-path $3 for the domain $2 of workspace $1; its records have not been seen.
UPDATE domain
SET return_path = $3, return_path_ready = return_path_ready AND return_path = $3
WHERE workspace_id = $1 AND id = $2;

-- name: note_check
-- What the last check of the domain $2 of workspace $1 found: whether its return-path can be used $3,
-- the verdicts $4 (JSON), at $5.
UPDATE domain SET return_path_ready = $3, verdicts = $4, checked_at = $5
WHERE workspace_id = $1 AND id = $2;

-- name: retire_keys
-- Of each algorithm the newest signing key signs on; the older ones, and what waited before it, are
-- retired at $3 and forget their private halves.
UPDATE dkim_key
SET state = 'retired', retired_at = $3, sealed_key = NULL, finding = ''
WHERE workspace_id = $1 AND domain_id = $2 AND state <> 'retired'
  AND id < (
      SELECT max(newer.id::text)::uuid FROM dkim_key AS newer
      WHERE newer.workspace_id = $1 AND newer.domain_id = $2
        AND newer.algorithm = dkim_key.algorithm AND newer.state = 'signing'
  );

-- name: drop_retired
-- Keys of the domain $2 of workspace $1 that were retired before $3.
DELETE FROM dkim_key
WHERE workspace_id = $1 AND domain_id = $2 AND state = 'retired' AND retired_at < $3;

-- name: signing_keys
-- What signs for each of the pairs (workspace $1, domain $2), and where its mail comes back to. A
-- domain that nothing signs for has one row, without a key.
SELECT domain.workspace_id, domain.name,
       CASE WHEN domain.return_path_ready THEN domain.return_path ELSE '' END AS return_path,
       dkim_key.id, dkim_key.selector, dkim_key.sealed_key
FROM unnest($1::uuid[], $2::text[]) AS asked (workspace_id, name)
JOIN domain ON domain.workspace_id = asked.workspace_id AND domain.name = asked.name
LEFT JOIN dkim_key
    ON dkim_key.workspace_id = domain.workspace_id AND dkim_key.domain_id = domain.id
    AND dkim_key.state = 'signing'
ORDER BY dkim_key.id;

-- name: any_sealed
-- Whether there is a secret at all: who has none needs no master key.
SELECT EXISTS (SELECT FROM dkim_key WHERE sealed_key IS NOT NULL);

-- name: sealed_otherwise
-- Up to $2 private keys, of all workspaces, that another master key than $1 has sealed.
SELECT id, sealed_key FROM dkim_key
WHERE sealed_key IS NOT NULL AND substring(sealed_key FROM 2 FOR 4) <> $1
LIMIT $2;

-- name: seal_anew
-- In place of the sealed keys $2 of the rows $1 their new ones $3, where nobody was faster.
UPDATE dkim_key SET sealed_key = anew.after
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS anew (id, before, after)
WHERE dkim_key.id = anew.id AND dkim_key.sealed_key = anew.before;
