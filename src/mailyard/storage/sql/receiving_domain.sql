-- Own receiving domains and where their mail goes.

-- part: domain
id, workspace_id, name, token, plus, proved_at, checked_at, finding, mx_state, mx_finding

-- part: route
id, workspace_id, domain_id, position, pattern, action, address, filed_in, forward_to

-- name: rules_of
-- The rules of the proved domains $1, of all workspaces: the domain of an address decides whose it is.
-- A domain without rules has one row.
SELECT domain.name, domain.workspace_id, domain.plus, route.pattern, route.action, route.address
FROM receiving_domain AS domain
LEFT JOIN inbound_route AS route
  ON route.workspace_id = domain.workspace_id AND route.domain_id = domain.id
WHERE domain.name = ANY($1::text[]) AND domain.proved_at IS NOT NULL
ORDER BY route.position, route.id;

-- name: add_domain
-- Adds the domain $3 of workspace $1 as $2, to be proved with $4. No row: it is there already.
INSERT INTO receiving_domain (id, workspace_id, name, token) VALUES ($2, $1, $3, $4)
ON CONFLICT (workspace_id, name) DO NOTHING
RETURNING
-- use: domain
;

-- name: get_domain
-- The domain $2 of workspace $1.
SELECT
-- use: domain
FROM receiving_domain WHERE workspace_id = $1 AND id = $2;

-- name: list_domains
-- The domains of workspace $1 before the id $2, newest first, up to $3.
SELECT
-- use: domain
FROM receiving_domain WHERE workspace_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: set_plus
-- Whether plus addresses of the domain $2 of workspace $1 lead where the part before + does.
UPDATE receiving_domain SET plus = $3 WHERE workspace_id = $1 AND id = $2
RETURNING
-- use: domain
;

-- name: holder
-- Who has the domain $1, of all workspaces, and with which token.
SELECT id, workspace_id, token FROM receiving_domain
WHERE name = $1 AND proved_at IS NOT NULL
FOR UPDATE;

-- name: lose_domain
-- The proof of the domain $2 of workspace $1 does not stand any more; $3 says why.
UPDATE receiving_domain SET proved_at = NULL, finding = $3 WHERE workspace_id = $1 AND id = $2;

-- name: note_check
-- What a check of the domain $2 of workspace $1 found at $3: whether it is proved $4, what is wrong
-- with the proof $5, how its MX stands $6 and what is wrong with it $7.
UPDATE receiving_domain
SET checked_at = $3,
    proved_at = CASE WHEN $4::boolean THEN coalesce(proved_at, $3) END,
    finding = $5, mx_state = $6, mx_finding = $7
WHERE workspace_id = $1 AND id = $2
RETURNING
-- use: domain
;

-- name: remove_domain
-- Takes the domain $2 of workspace $1 away, its routes with it.
DELETE FROM receiving_domain WHERE workspace_id = $1 AND id = $2 RETURNING id;

-- name: free_addresses
-- Up to $3 addresses under the domain $2 of workspace $1 take no mail any more.
DELETE FROM address
WHERE workspace_id = $1 AND address IN (
    SELECT address FROM address WHERE workspace_id = $1 AND domain_id = $2 LIMIT $3
);

-- name: add_route
-- Adds the route $3 to the domain $2 of workspace $1, behind the others: pattern $4, action $5, the
-- inbox's address $6, the route's own inbox $7, forwards $8. No row: the pattern is there already.
INSERT INTO inbound_route
    (id, workspace_id, domain_id, position, pattern, action, address, filed_in, forward_to)
SELECT $3, $1, $2,
       coalesce((SELECT max(position) + 1 FROM inbound_route
                 WHERE workspace_id = $1 AND domain_id = $2), 1),
       $4, $5, $6, $7, $8
ON CONFLICT (domain_id, pattern) DO NOTHING
RETURNING
-- use: route
;

-- name: list_routes
-- The routes of the domain $2 of workspace $1, in their order.
SELECT
-- use: route
FROM inbound_route WHERE workspace_id = $1 AND domain_id = $2 ORDER BY position, id;

-- name: get_route
-- The route $2 of workspace $1.
SELECT
-- use: route
FROM inbound_route WHERE workspace_id = $1 AND id = $2;

-- name: count_routes
-- How many routes the domain $2 of workspace $1 has; nobody else adds one until the end.
SELECT count(route.id)
FROM (SELECT id FROM receiving_domain WHERE workspace_id = $1 AND id = $2 FOR UPDATE) AS held
LEFT JOIN inbound_route AS route ON route.workspace_id = $1 AND route.domain_id = held.id;

-- name: place_route
-- The route $2 of workspace $1 stands at position $3.
UPDATE inbound_route SET position = $3 WHERE workspace_id = $1 AND id = $2
RETURNING
-- use: route
;

-- name: remove_route
-- Takes the route $2 of workspace $1 away.
DELETE FROM inbound_route WHERE workspace_id = $1 AND id = $2
RETURNING
-- use: route
;

-- name: forwards_of
-- Of the inboxes $2 of the workspaces $1 those that routes forward from, and to whom.
SELECT workspace_id, id, filed_in, forward_to FROM inbound_route
WHERE workspace_id = ANY($1::uuid[]) AND filed_in = ANY($2::uuid[]) AND action = 'forward';

-- name: message_to_forward
-- The message $2 of workspace $1 with its bytes.
SELECT reverse_path, raw, blob FROM message WHERE workspace_id = $1 AND id = $2;

-- name: reserve
-- Holds the addresses $2 for workspace $1; those that are held now for it. An address that another
-- workspace has an inbox at is not held.
INSERT INTO reserved_address (address, workspace_id)
SELECT wanted, $1 FROM unnest($2::text[]) AS wanted
WHERE NOT EXISTS (
    SELECT FROM address
    WHERE address.address = wanted AND address.workspace_id <> $1
      AND (address.expires_at IS NULL OR address.expires_at > now())
)
ON CONFLICT (address) DO UPDATE SET workspace_id = excluded.workspace_id
WHERE reserved_address.workspace_id = excluded.workspace_id
RETURNING address;

-- name: count_reserved
-- How many addresses are held for workspace $1.
SELECT count(*) FROM reserved_address WHERE workspace_id = $1;

-- name: release
-- Lets the addresses $2 of workspace $1 go.
DELETE FROM reserved_address WHERE workspace_id = $1 AND address = ANY($2::text[]) RETURNING address;

-- name: list_reserved
-- The addresses that are held for workspace $1, after $2, up to $3.
SELECT address, created_at FROM reserved_address
WHERE workspace_id = $1 AND address > $2
ORDER BY address LIMIT $3;
