-- What a preflight asks about a list, a domain and what was sent before.

-- name: count_list
-- Of the list $2: its members, those added before $3 and before $4, and those whose local part is one
-- of $5, or whose domain is one of $6, or ends in one of $7.
SELECT count(*) AS members,
       count(*) FILTER (WHERE m.added_at < $3) AS stale,
       count(*) FILTER (WHERE m.added_at < $4) AS dead,
       count(*) FILTER (WHERE split_part(split_part(c.address, '@', 1), '+', 1) = ANY ($5::text[])
                           OR split_part(c.address, '@', 2) = ANY ($6::text[])
                           OR substring(c.address FROM '[^.]+$') = ANY ($7::text[])) AS traps
FROM list_member m
JOIN contact c ON c.id = m.contact_id AND c.workspace_id = m.workspace_id
WHERE m.workspace_id = $1 AND m.list_id = $2;

-- name: example_traps
-- Some of the members of the list $2 that `count_list` counts as traps.
SELECT c.address
FROM list_member m
JOIN contact c ON c.id = m.contact_id AND c.workspace_id = m.workspace_id
WHERE m.workspace_id = $1 AND m.list_id = $2
  AND (split_part(split_part(c.address, '@', 1), '+', 1) = ANY ($3::text[])
       OR split_part(c.address, '@', 2) = ANY ($4::text[])
       OR substring(c.address FROM '[^.]+$') = ANY ($5::text[]))
ORDER BY m.contact_id LIMIT $6;

-- name: count_lacks
-- Of the attributes $3, those that some members of the list $2 lack, and how many do.
SELECT wanted.name, count(*) AS contacts
FROM list_member m
JOIN contact c ON c.id = m.contact_id AND c.workspace_id = m.workspace_id
CROSS JOIN unnest($3::text[]) AS wanted (name)
WHERE m.workspace_id = $1 AND m.list_id = $2 AND NOT c.attributes ? wanted.name
GROUP BY wanted.name ORDER BY wanted.name;

-- name: kinds_of_list
-- How the members of the list $2 differ for a template that reads their attributes $3 and decides by
-- $4 of them: by the values of the latter, by whether and as what (text, number, …) the others are
-- there. How many each kind has, and one of them; the $5 largest.
SELECT count(*) AS contacts, min(one.id::text)::uuid AS example
FROM (
    SELECT c.id, c.name = '' AS nameless, (
        SELECT md5(string_agg(CASE
            WHEN wanted.name = ANY ($4::text[]) THEN coalesce((c.attributes -> wanted.name)::text, '')
            ELSE coalesce(jsonb_typeof(c.attributes -> wanted.name), '')
        END, chr(31) ORDER BY wanted.name))
        FROM unnest($3::text[]) AS wanted (name)
    ) AS kind
    FROM list_member m
    JOIN contact c ON c.id = m.contact_id AND c.workspace_id = m.workspace_id
    WHERE m.workspace_id = $1 AND m.list_id = $2
) AS one
GROUP BY kind, nameless ORDER BY contacts DESC, example LIMIT $5;

-- name: check_slice
-- What `count_list`, `example_traps`, `count_lacks` and `kinds_of_list` say together, of the contacts
-- ($2, $3] that match a segment's filter. `lacks`: name and how many; `kinds`: which, how many, one
-- of them.
WITH matching AS MATERIALIZED (
    SELECT c.id, c.address, c.attributes, c.created_at,
           split_part(split_part(c.address, '@', 1), '+', 1) = ANY ({locals}::text[])
           OR split_part(c.address, '@', 2) = ANY ({domains}::text[])
           OR substring(c.address FROM '[^.]+$') = ANY ({tops}::text[]) AS is_trap,
           (c.name = '')::text || coalesce((
               SELECT md5(string_agg(CASE
                   WHEN wanted.name = ANY ({deciding}::text[]) THEN
                       coalesce((c.attributes -> wanted.name)::text, '')
                   ELSE coalesce(jsonb_typeof(c.attributes -> wanted.name), '')
               END, chr(31) ORDER BY wanted.name))
               FROM unnest({fields}::text[]) AS wanted (name)
           ), '') AS kind
    FROM contact AS c WHERE c.workspace_id = $1 AND c.id > $2 AND c.id <= $3 AND {filter}
)
SELECT count(*) AS members,
       count(*) FILTER (WHERE created_at < {stale}::timestamptz) AS stale,
       count(*) FILTER (WHERE created_at < {dead}::timestamptz) AS dead,
       count(*) FILTER (WHERE is_trap) AS traps,
       (array_agg(address ORDER BY id) FILTER (WHERE is_trap))[1:5] AS trap_examples,
       (SELECT jsonb_agg(jsonb_build_array(name, contacts))::text
        FROM (SELECT wanted.name, count(*) AS contacts
              FROM matching m CROSS JOIN unnest({fields}::text[]) AS wanted (name)
              WHERE NOT m.attributes ? wanted.name
              GROUP BY wanted.name) AS lacking) AS lacks,
       (SELECT jsonb_agg(jsonb_build_array(kind, contacts, example))::text
        FROM (SELECT kind, count(*) AS contacts, min(m.id::text) AS example
              FROM matching m GROUP BY kind
              ORDER BY contacts DESC LIMIT {kinds}::int) AS found) AS kinds
FROM matching;

-- name: last_send_to_segment
-- When a campaign to the segment $2, other than $3, was last begun.
SELECT max(first_started_at) FROM campaign
WHERE workspace_id = $1 AND segment_id = $2 AND id <> $3;

-- name: contacts_to_try
-- The contacts $2, as a campaign's mail is written for them.
SELECT id, address, name, attributes::text FROM contact
WHERE workspace_id = $1 AND id = ANY ($2::uuid[]) ORDER BY id;

-- name: first_members
-- Some members of the list $2, as a campaign's mail is written for them.
SELECT c.id, c.address, c.name, c.attributes::text
FROM list_member m
JOIN contact c ON c.id = m.contact_id AND c.workspace_id = m.workspace_id
WHERE m.workspace_id = $1 AND m.list_id = $2 ORDER BY m.contact_id LIMIT $3;

-- name: last_send
-- When a campaign to the list $2, other than $3, was last begun.
SELECT max(first_started_at) FROM campaign
WHERE workspace_id = $1 AND list_id = $2 AND id <> $3;

-- name: rates
-- What became of the mail of campaigns from the domain $2 that were begun since $3.
SELECT coalesce(sum(k.accepted + k.bounced), 0)::bigint AS sent,
       coalesce(sum(k.bounced + r.bounced), 0)::bigint AS bounced,
       coalesce(sum(r.complained), 0)::bigint AS complained
FROM campaign c
CROSS JOIN LATERAL (SELECT coalesce(sum(accepted), 0) AS accepted,
                           coalesce(sum(bounced), 0) AS bounced
                    FROM campaign_chunk
                    WHERE workspace_id = c.workspace_id AND campaign_id = c.id) AS k
CROSS JOIN LATERAL (SELECT coalesce(sum(bounced), 0) AS bounced,
                           coalesce(sum(complained), 0) AS complained
                    FROM campaign_result
                    WHERE workspace_id = c.workspace_id AND campaign_id = c.id) AS r
WHERE c.workspace_id = $1 AND c.first_started_at >= $3
  AND rtrim(lower(split_part(c.sender, '@', -1)), '> ') = $2;

-- name: single_rates
-- What became of those of the newest $4 single emails of workspace $1 with ids from $3 on that were sent
-- from the domain $2. A delivery is made with its email, so its id lies behind $3 too.
WITH one AS MATERIALIZED (
    SELECT id FROM (
        SELECT id, sender FROM email WHERE workspace_id = $1 AND id >= $3 ORDER BY id DESC LIMIT $4
    ) AS newest
    WHERE rtrim(lower(split_part(sender, '@', -1)), '> ') = $2
)
SELECT count(*) AS sent, count(*) FILTER (WHERE d.state = 'bounced') AS bounced,
       count(*) FILTER (WHERE EXISTS (
           SELECT FROM delivery_event e
           WHERE e.delivery_id = d.id AND e.workspace_id = $1 AND e.kind = 'complained'
       )) AS complained
FROM one
JOIN delivery d ON d.email_id = one.id AND d.id >= $3
WHERE d.workspace_id = $1 AND d.state IN ('accepted', 'delivered', 'bounced');

-- name: domain_by_name
-- The sending domain $2 of a workspace.
SELECT id FROM domain WHERE workspace_id = $1 AND name = $2;

-- name: own_names
-- Names that are the workspace's own: its sending domains and tracking names.
SELECT name FROM domain WHERE workspace_id = $1
UNION SELECT name FROM tracking_domain WHERE workspace_id = $1;
