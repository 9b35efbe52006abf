-- Providers, the routes among them, and how they fare.

-- name: hold_names
-- Until the end of the transaction nobody else adds or removes a provider, or changes routes.
SELECT pg_advisory_xact_lock(hashtextextended('provider names', 0));

-- name: names_like
-- Whoever has or had the name $2: in the workspace $1, shared, or anywhere when $3 (shared itself).
SELECT workspace_id, shared, removed_at FROM provider
WHERE name = $2 AND (workspace_id = $1 OR shared OR $3);

-- name: add_provider
-- A new provider $2 of workspace $1: shared $3, name $4, kind $5, settings $6, secrets' names $7
-- and, sealed, the secrets $8.
INSERT INTO provider (id, workspace_id, shared, name, kind, settings, secret_names, sealed_secrets)
VALUES ($2, $1, $3, $4, $5, $6::jsonb, $7, $8);

-- name: get_provider
-- One that the workspace may use: its own, or a shared one.
SELECT id, workspace_id, shared, name, kind, settings::text AS settings, secret_names,
       sealed_secrets, enabled, revision
FROM provider WHERE id = $2 AND (workspace_id = $1 OR shared) AND removed_at IS NULL;

-- name: list_providers
-- Those that the workspace may use, newest first, ids below $2.
SELECT id, workspace_id, shared, name, kind, settings::text AS settings, secret_names,
       sealed_secrets, enabled, revision
FROM provider
WHERE (workspace_id = $1 OR shared) AND removed_at IS NULL AND id < $2
ORDER BY id DESC LIMIT $3;

-- name: count_providers
-- How many providers of its own a workspace has.
SELECT count(*) FROM provider WHERE workspace_id = $1 AND removed_at IS NULL;

-- name: change_provider
-- Settings $3, secrets' names $4 and, sealed, the secrets $5, enabled $6.
UPDATE provider
SET settings = $3::jsonb, secret_names = $4, sealed_secrets = $5, enabled = $6,
    revision = revision + 1
WHERE workspace_id = $1 AND id = $2 AND removed_at IS NULL
RETURNING revision;

-- name: remove_provider
-- Its name stays, for the history that speaks of it; its secrets go.
UPDATE provider SET removed_at = now(), sealed_secrets = NULL, enabled = false
WHERE workspace_id = $1 AND id = $2 AND removed_at IS NULL;

-- name: routes_using
-- Which routes the name $2 is on: of the workspace $1, or of anybody when $3.
SELECT workspace_id, shared, name FROM route
WHERE (workspace_id = $1 OR $3)
  AND legs @> jsonb_build_array(jsonb_build_object('provider', $2::text));

-- name: names_in_use
-- The names that routes of the workspace may give: its own providers', and the shared ones'; of
-- shared routes ($2) the latter alone.
SELECT name FROM provider
WHERE (shared OR workspace_id = $1 AND NOT $2) AND removed_at IS NULL;

-- name: list_routes
-- From the top: the workspace's own, or its shared ones ($2).
SELECT name, conditions::text AS conditions, legs::text AS legs FROM route
WHERE workspace_id = $1 AND shared = $2 ORDER BY place;

-- name: list_shared_routes
-- From the top: what stands in for a workspace's own routes.
SELECT name, conditions::text AS conditions, legs::text AS legs FROM route
WHERE shared ORDER BY workspace_id, place;

-- name: drop_routes
-- All routes of a workspace, its own or its shared ones ($2).
DELETE FROM route WHERE workspace_id = $1 AND shared = $2;

-- name: add_routes
-- Routes in order: names $3, conditions $4, legs $5.
INSERT INTO route (workspace_id, shared, place, name, conditions, legs)
SELECT $1, $2, place, name, conditions::jsonb, legs::jsonb
FROM unnest($3::text[], $4::text[], $5::text[]) WITH ORDINALITY
    AS given (name, conditions, legs, place);

-- name: all_providers
-- Every provider, for a worker that sends for all workspaces.
SELECT id, workspace_id, shared, name, kind, settings::text AS settings, secret_names,
       sealed_secrets, enabled, revision
FROM provider WHERE removed_at IS NULL;

-- name: all_routes
-- Every route, for a worker that sends for all workspaces.
SELECT workspace_id, shared, name, conditions::text AS conditions, legs::text AS legs
FROM route ORDER BY workspace_id, shared, place;

-- name: tell_health
-- How providers fare in the process $1, and what changed: provider $2, position $3, why $4, until $5,
-- changed at $6, found out by itself $7, counts $8 to $12.
INSERT INTO provider_health AS h (holder, provider_id, position, why, until_at, changed_at, own,
                                  accepted, later, refused, unknown, passed_on)
SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
                         $7::boolean[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[],
                         $12::bigint[])
ON CONFLICT (provider_id, holder) DO UPDATE
SET position = excluded.position, why = excluded.why, until_at = excluded.until_at,
    changed_at = excluded.changed_at, own = excluded.own, accepted = excluded.accepted,
    later = excluded.later, refused = excluded.refused, unknown = excluded.unknown,
    passed_on = excluded.passed_on, seen_at = now();

-- name: tell_events
-- Breakers that changed: id $1, provider $2, position $3, why $4, until $5.
INSERT INTO provider_event (id, provider_id, position, why, until_at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[]);

-- name: open_elsewhere
-- Breakers that other processes than $1 have found out to be open, and that still are.
SELECT provider_id, why, until_at, changed_at FROM provider_health
WHERE holder <> $1 AND own AND position = 'open' AND until_at > now()
  AND seen_at > now() - interval '60 seconds';

-- name: read_health
-- How the providers $1 fare, process by process, of those seen within the last minute.
SELECT provider_id, holder, position, why, until_at, changed_at, accepted, later, refused, unknown,
       passed_on, seen_at
FROM provider_health
WHERE provider_id = ANY ($1::uuid[]) AND seen_at > now() - interval '60 seconds'
ORDER BY provider_id, holder;

-- name: read_events
-- What the breaker of provider $1 did, newest first.
SELECT id, position, why, until_at FROM provider_event
WHERE provider_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: forget_health
-- Of processes that are gone.
DELETE FROM provider_health WHERE seen_at < now() - interval '1 day';

-- name: forget_events
-- Up to $2 that are older than the id $1.
DELETE FROM provider_event
WHERE id IN (SELECT id FROM provider_event WHERE id < $1 ORDER BY id LIMIT $2);

-- name: any_sealed
-- Whether there is a secret at all: who has none needs no master key.
SELECT EXISTS (SELECT FROM provider WHERE sealed_secrets IS NOT NULL);

-- name: sealed_otherwise
-- Up to $2 secrets, of all workspaces, that another master key than $1 has sealed.
SELECT id, sealed_secrets FROM provider
WHERE sealed_secrets IS NOT NULL AND substring(sealed_secrets FROM 2 FOR 4) <> $1
LIMIT $2;

-- name: seal_anew
-- In place of the sealed secrets $2 of the rows $1 their new ones $3, where nobody was faster.
UPDATE provider SET sealed_secrets = anew.after
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS anew (id, before, after)
WHERE provider.id = anew.id AND provider.sealed_secrets = anew.before;
