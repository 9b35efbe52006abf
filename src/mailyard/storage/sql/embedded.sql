-- name: role_exists
-- Whether the role $1 has been made.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1);

-- name: database_exists
-- Whether the database $1 has been made.
SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1);

-- name: make_slot
-- A slot for the replica $1, which keeps the log that it has not read yet, where missing.
SELECT pg_create_physical_replication_slot($1, true)
WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1);

-- name: drop_slots_of_nobody
-- The slots of replicas that are not among $1 any more.
SELECT pg_drop_replication_slot(slot_name)
FROM pg_replication_slots
WHERE slot_name ^@ 'mailyard_replica_' AND NOT active AND slot_name <> ALL ($1::text[]);

-- name: whom_to_follow
-- Which cluster this is, in which of its lives, and whether the log that the slot $1 needs is there.
SELECT (SELECT system_identifier FROM pg_control_system())::text AS system,
       (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline,
       coalesce((SELECT wal_status <> 'lost' FROM pg_replication_slots WHERE slot_name = $1), false)
           AS kept;

-- name: drop_slot
-- Let the slot $1 go.
SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1;
