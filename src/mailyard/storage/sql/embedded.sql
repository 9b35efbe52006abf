-- name: role_exists
-- Whether the role $1 has been made.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1);

-- name: database_exists
-- Whether the database $1 has been made.
SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1);
