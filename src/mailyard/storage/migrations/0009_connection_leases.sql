-- How many connections each worker may have to a site: limits hold over all workers, and what a
-- killed one held is free again when its lease is void.

CREATE TABLE connection_lease (
    key     text NOT NULL,                         -- site:<source address>:<site>
    holder  uuid NOT NULL,                         -- the worker process
    held    integer NOT NULL,
    wanted  integer NOT NULL,
    void_at timestamptz NOT NULL,
    PRIMARY KEY (key, holder)
) WITH (fillfactor = 50);
