-- What has run out, over all workspaces: nothing of it is visible to anybody any more.

-- name: expired_idempotency_keys
DELETE FROM idempotency_key WHERE ctid IN (
    SELECT ctid FROM idempotency_key WHERE expires_at < now() LIMIT $1
);

-- name: expired_sessions
DELETE FROM session WHERE ctid IN (SELECT ctid FROM session WHERE expires_at < now() LIMIT $1);

-- name: expired_login_links
DELETE FROM login_link WHERE ctid IN (
    SELECT ctid FROM login_link WHERE expires_at < now() - interval '1 day' LIMIT $1
);

-- name: expired_addresses
DELETE FROM address AS gone USING (
    SELECT address FROM address
    WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
) AS due WHERE gone.address = due.address;

-- name: full_rate_buckets
DELETE FROM rate_bucket WHERE ctid IN (
    SELECT ctid FROM rate_bucket WHERE tat < now() - interval '1 hour' LIMIT $1
);
