-- name: alone
-- One process at a time decides which key is the installation's first.
SELECT pg_advisory_xact_lock(hashtextextended('mailyard master key', 7217410944));

-- name: known
-- The ids of the keys that this installation uses or has used; keys belong to all workspaces.
SELECT id FROM master_key;

-- name: note
INSERT INTO master_key (id) VALUES ($1) ON CONFLICT DO NOTHING;
