-- Up to where of the write-ahead log a caller (an API key, a session, hashed) has written, so that
-- a replica that answers it has its writes. Of use for seconds: unlogged, and never on a replica.

CREATE UNLOGGED TABLE written_place (
    caller     bytea PRIMARY KEY,
    position   bigint NOT NULL,
    written_at timestamptz NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.2);
