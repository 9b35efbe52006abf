-- What people may choose to get: topics of a workspace, and what each address has said.

-- name: insert_topic
-- A new topic, or nothing when the name is taken.
INSERT INTO topic (id, workspace_id, name, description, on_request) VALUES ($2, $1, $3, $4, $5)
ON CONFLICT (workspace_id, name) DO NOTHING
RETURNING id, name, description, on_request;

-- name: get_topic
-- One topic.
SELECT id, name, description, on_request FROM topic WHERE workspace_id = $1 AND id = $2;

-- name: page_topics
-- The newest first, with ids below $2.
SELECT id, name, description, on_request FROM topic
WHERE workspace_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3;

-- name: change_topic
-- Another name and description.
UPDATE topic SET name = $3, description = $4 WHERE workspace_id = $1 AND id = $2
RETURNING id, name, description, on_request;

-- name: topic_in_use
-- Whether a campaign that is not over is about the topic.
SELECT EXISTS (SELECT FROM campaign WHERE workspace_id = $1 AND topic_id = $2
               AND state IN ('draft', 'running', 'paused'));

-- name: delete_topic
-- Removes a topic and what people have said about it.
DELETE FROM topic WHERE workspace_id = $1 AND id = $2
RETURNING id, name, description, on_request;

-- name: choices_of
-- All topics, by name, with what the address $2 has said about each.
SELECT t.id, t.name, t.description, t.on_request, w.subscribed
FROM topic t
LEFT JOIN contact_topic w ON w.topic_id = t.id AND w.workspace_id = $1 AND w.address = $2
WHERE t.workspace_id = $1 ORDER BY t.name LIMIT $3;

-- name: choose
-- What the address $2 says about the workspace's topics $3: whether it wants each, $4. Returns what
-- has changed.
INSERT INTO contact_topic AS standing (topic_id, address, workspace_id, subscribed)
SELECT t.id, $2, $1, said.subscribed
FROM unnest($3::uuid[], $4::boolean[]) AS said (topic_id, subscribed)
JOIN topic t ON t.id = said.topic_id AND t.workspace_id = $1
ORDER BY t.id
ON CONFLICT (topic_id, address) DO UPDATE SET subscribed = excluded.subscribed, changed_at = now()
WHERE standing.subscribed <> excluded.subscribed
RETURNING topic_id, subscribed;

-- name: count_choices
-- How many have said yes and no to each of the topics $2.
SELECT topic_id, count(*) FILTER (WHERE subscribed) AS yes, count(*) FILTER (WHERE NOT subscribed) AS no
FROM contact_topic WHERE workspace_id = $1 AND topic_id = ANY ($2::uuid[]) GROUP BY topic_id;

-- name: whose_mail
-- To whom a delivery went, and what it was about.
SELECT d.recipient, d.campaign_id, c.topic_id, t.name AS topic, c.name AS campaign,
       w.name AS workspace
FROM delivery d
JOIN workspace w ON w.id = d.workspace_id
LEFT JOIN campaign c ON c.id = d.campaign_id AND c.workspace_id = $1
LEFT JOIN topic t ON t.id = c.topic_id AND t.workspace_id = $1
WHERE d.workspace_id = $1 AND d.id = $2;

-- name: stopped
-- Whether campaigns are kept from an address, and whether by its own word.
SELECT stream, reason FROM suppression
WHERE workspace_id = $1 AND address = $2 AND stream IN ('all', 'campaign');

-- name: lift_unsubscribe
-- Takes an address' own word back, and nothing else that keeps mail from it.
DELETE FROM suppression
WHERE workspace_id = $1 AND address = $2 AND stream = 'campaign' AND reason = $3
RETURNING id;
