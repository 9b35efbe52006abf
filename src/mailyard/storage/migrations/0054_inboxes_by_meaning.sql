-- concurrently
-- The few inboxes that say for themselves whether their mail is found by meaning.
CREATE INDEX CONCURRENTLY IF NOT EXISTS inbox_by_meaning ON inbox (workspace_id)
    WHERE by_meaning IS NOT NULL;
