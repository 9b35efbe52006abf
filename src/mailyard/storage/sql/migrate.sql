-- name: lock
-- Waits for the one migration lock of this database; held until the session ends.
SELECT pg_advisory_lock(7217410942);

-- name: unlock
-- Lets the next instance look.
SELECT pg_advisory_unlock(7217410942);

-- name: create_table
-- The record of what has been applied, with the SHA-256 of each file's text.
CREATE TABLE IF NOT EXISTS schema_migration (
    number      integer PRIMARY KEY,
    name        text NOT NULL,
    checksum    bytea NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);

-- name: table_exists
-- Whether this database has ever been migrated.
SELECT to_regclass('schema_migration') IS NOT NULL;

-- name: applied
-- What has been applied, in order.
SELECT number, name, checksum FROM schema_migration ORDER BY number;

-- name: record
-- Writes down that a migration was applied; in the same transaction as its statements.
INSERT INTO schema_migration (number, name, checksum) VALUES ($1, $2, $3);
