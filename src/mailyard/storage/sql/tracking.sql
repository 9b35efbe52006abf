-- Opens, clicks, unsubscribes: addresses that links lead to, what was seen, whose names they go by.

-- name: store_links
-- Addresses of workspace $1 and campaign $2: ids $3, the pattern of each $4, urls $5, whether it is a
-- pattern $6. Those that stand already stay as they are.
INSERT INTO tracked_link (id, workspace_id, campaign_id, source_id, url, pattern)
SELECT id, $1, $2, source_id, url, pattern
FROM unnest($3::uuid[], $4::uuid[], $5::text[], $6::boolean[]) AS new (id, source_id, url, pattern)
ON CONFLICT (id) DO NOTHING;

-- name: find_link
-- Where a link leads, and whose it is.
SELECT workspace_id, url FROM tracked_link WHERE id = $1 AND NOT pattern;

-- name: page_links
-- The links that the template of campaign $2 has, behind $3, with how often they were followed.
SELECT l.id, l.url, l.pattern, l.created_at,
       coalesce(n.clicks, 0)::bigint AS clicks, coalesce(n.machine_clicks, 0)::bigint AS machine_clicks
FROM tracked_link l
LEFT JOIN LATERAL (
    SELECT sum(amount) FILTER (WHERE name = 'link.clicks') AS clicks,
           sum(amount) FILTER (WHERE name = 'link.machine_clicks') AS machine_clicks
    FROM (SELECT name, amount FROM counter
          WHERE workspace_id = $1 AND name IN ('link.clicks', 'link.machine_clicks')
            AND subject = l.id
          UNION ALL
          SELECT name, amount FROM counter_delta
          WHERE workspace_id = $1 AND name IN ('link.clicks', 'link.machine_clicks')
            AND subject = l.id) AS counted
) n ON true
WHERE l.workspace_id = $1 AND l.campaign_id = $2 AND l.source_id IS NULL AND l.id > $3
ORDER BY l.id LIMIT $4;

-- name: sources_of
-- The links $2 that came from a pattern, with it.
SELECT id, source_id FROM tracked_link
WHERE workspace_id = $1 AND id = ANY ($2::uuid[]) AND source_id IS NOT NULL;

-- name: load_tracked
-- The deliveries $4, whose ids lie in [$2, $3].
SELECT id, email_id, campaign_id, contact_id, recipient, type, handed_off_at
FROM delivery
WHERE workspace_id = $1 AND id >= $2 AND id <= $3 AND id = ANY ($4::uuid[]);

-- name: load_clicks
-- The clicks on the deliveries $4, ids in [$2, $3], with ids from $5 on.
SELECT delivery_id, id, link_id, machine FROM tracking_event
WHERE workspace_id = $1 AND delivery_id >= $2 AND delivery_id <= $3
  AND delivery_id = ANY ($4::uuid[]) AND id >= $5 AND kind = 'clicked';

-- name: insert_events
-- What was seen, by columns; what is there already is not written again. Returns the new ones.
INSERT INTO tracking_event (delivery_id, id, workspace_id, kind, link_id, machine, user_agent,
                            network)
SELECT delivery_id, id, $1, kind, link_id, machine, user_agent, network
FROM unnest($2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::text[], $7::text[], $8::text[])
    AS new (delivery_id, id, kind, link_id, machine, user_agent, network)
ON CONFLICT (delivery_id, id) DO NOTHING
RETURNING id;

-- name: insert_firsts
-- The first time of each (delivery $2, kind $3) at $4. Returns those that were the first.
INSERT INTO tracking_first (delivery_id, kind, workspace_id, at)
SELECT delivery_id, kind, $1, at
FROM unnest($2::uuid[], $3::text[], $4::timestamptz[]) AS new (delivery_id, kind, at)
ON CONFLICT (delivery_id, kind) DO NOTHING
RETURNING delivery_id, kind;

-- name: blame_machine
-- The clicks (delivery $4, id $5), deliveries in [$2, $3], were of a scanner after all: rule $6.
UPDATE tracking_event e SET machine = $6
FROM unnest($4::uuid[], $5::uuid[]) AS found (delivery_id, id)
WHERE e.workspace_id = $1 AND e.delivery_id >= $2 AND e.delivery_id <= $3
  AND e.delivery_id = found.delivery_id AND e.id = found.id AND e.machine = ''
RETURNING e.delivery_id, e.link_id;

-- name: forget_firsts
-- Of the deliveries $4, in [$2, $3], those that no person has clicked on any more. Returns them.
DELETE FROM tracking_first f
WHERE f.workspace_id = $1 AND f.delivery_id >= $2 AND f.delivery_id <= $3
  AND f.delivery_id = ANY ($4::uuid[]) AND f.kind = 'clicked'
  AND NOT EXISTS (SELECT FROM tracking_event e
                  WHERE e.workspace_id = $1 AND e.delivery_id = f.delivery_id
                    AND e.kind = 'clicked' AND e.machine = '')
RETURNING f.delivery_id;

-- name: events_of_delivery
-- What was seen of a delivery, in order.
SELECT e.id, e.kind, e.machine, e.user_agent, e.network, l.url
FROM tracking_event e
LEFT JOIN tracked_link l ON l.id = e.link_id AND l.workspace_id = $1
WHERE e.workspace_id = $1 AND e.delivery_id = $2 ORDER BY e.id LIMIT $3;

-- name: read_totals
-- The counters of subject $2, of all time.
SELECT name, sum(amount)::bigint AS amount
FROM (SELECT name, amount FROM counter
      WHERE workspace_id = $1 AND subject = $2 AND name = ANY ($3::text[])
      UNION ALL
      SELECT name, amount FROM counter_delta
      WHERE workspace_id = $1 AND subject = $2 AND name = ANY ($3::text[])) AS counted
GROUP BY name;

-- name: add_tracking_domain
-- A name, not verified yet. No row when the workspace has it already.
INSERT INTO tracking_domain (id, workspace_id, name) VALUES ($2, $1, $3)
ON CONFLICT (workspace_id, name) DO NOTHING
RETURNING id, workspace_id, name, verified, finding, looked_at;

-- name: get_tracking_domain
-- One name.
SELECT id, workspace_id, name, verified, finding, looked_at FROM tracking_domain
WHERE workspace_id = $1 AND id = $2;

-- name: page_tracking_domains
-- Newest first, ids below $2.
SELECT id, workspace_id, name, verified, finding, looked_at FROM tracking_domain
WHERE workspace_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: remove_tracking_domain
-- Takes a name away.
DELETE FROM tracking_domain WHERE workspace_id = $1 AND id = $2
RETURNING id, workspace_id, name, verified, finding, looked_at;

-- name: owns_name
-- Whether one of the domains $2 is the workspace's, with a key that signs.
SELECT EXISTS (SELECT FROM domain d JOIN dkim_key k ON k.domain_id = d.id AND k.workspace_id = $1
               WHERE d.workspace_id = $1 AND d.name = ANY ($2::text[]) AND k.state = 'signing');

-- name: taken_name
-- Whether another workspace than $1 uses the name $2.
SELECT EXISTS (SELECT FROM tracking_domain WHERE name = $2 AND verified AND workspace_id <> $1);

-- name: note_tracking_domain
-- What a look at DNS found.
UPDATE tracking_domain SET verified = $3, finding = $4, looked_at = $5
WHERE workspace_id = $1 AND id = $2
RETURNING id, workspace_id, name, verified, finding, looked_at;

-- name: names_in_use
-- All verified names with their workspaces, the newest first: whose mail leads to which, and whose
-- links may be asked for by which.
SELECT workspace_id, name FROM tracking_domain WHERE verified ORDER BY id DESC;

-- name: get_imprint
-- What the mail of a workspace says of its sender.
SELECT physical_address, footer_html, footer_text, track_opens, track_clicks FROM imprint
WHERE workspace_id = $1;

-- name: save_imprint
-- Puts an imprint in the place of what stands.
INSERT INTO imprint (workspace_id, physical_address, footer_html, footer_text, track_opens,
                     track_clicks)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (workspace_id) DO UPDATE
SET physical_address = excluded.physical_address, footer_html = excluded.footer_html,
    footer_text = excluded.footer_text, track_opens = excluded.track_opens,
    track_clicks = excluded.track_clicks;
