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
-- What has been applied, in order. The last column is of 0047: as JSON it is null before.
SELECT number, name, checksum,
       (to_jsonb(schema_migration) ->> 'breaks_below')::integer AS breaks_below
FROM schema_migration ORDER BY number;

-- name: record
-- Writes down that a migration was applied; in the same transaction as its statements.
INSERT INTO schema_migration (number, name, checksum) VALUES ($1, $2, $3);

-- name: record_break
-- The migration $1 is not for builds that know fewer than $2.
UPDATE schema_migration SET breaks_below = $2 WHERE number = $1;

-- name: index_is_valid
-- Whether the index $1 stands and may be used; null when there is none of the name.
SELECT i.indisvalid FROM pg_index i
WHERE i.indexrelid = to_regclass(quote_ident($1));

-- name: kind_of_table
-- p for a table in partitions, r for a plain one; null when there is none of the name.
SELECT relkind::text FROM pg_class WHERE oid = to_regclass(quote_ident($1));

-- name: partitions_of
-- The direct partitions of the table $1.
SELECT child.relname::text AS name
FROM pg_inherits link JOIN pg_class child ON child.oid = link.inhrelid
WHERE link.inhparent = to_regclass(quote_ident($1)) AND NOT link.inhdetachpending
ORDER BY 1;

-- name: limit_lock_wait
-- A change of the schema waits no longer for a lock: behind it everybody would wait too.
SELECT set_config('lock_timeout', $1, true);
