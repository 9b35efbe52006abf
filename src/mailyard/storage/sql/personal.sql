-- name: contacts_at
-- What templates know of the contacts with the addresses $2.
SELECT address, name, attributes::text FROM contact
WHERE workspace_id = $1 AND address = ANY($2::text[]);

-- name: topics
-- The topics that an address may choose.
SELECT name, on_request FROM topic WHERE workspace_id = $1;

-- name: said
-- What the addresses $2 have said about topics.
SELECT w.address, t.name, w.subscribed
FROM contact_topic w JOIN topic t ON t.id = w.topic_id AND t.workspace_id = w.workspace_id
WHERE w.workspace_id = $1 AND w.address = ANY($2::text[]);
