-- name: expired_addresses
-- Frees up to $1 addresses whose inbox has run out, in every workspace; the inbox itself leaves
-- with its partition.
DELETE FROM address AS gone USING (
    SELECT address FROM address
    WHERE expires_at < now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED
) AS due WHERE gone.address = due.address;
