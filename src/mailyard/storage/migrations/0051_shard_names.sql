-- The directory of names (docs/SHARDS.md), used in the home cluster alone: whose an address, a
-- receiving domain, an API key is, in whichever cluster its workspace lives. A name is claimed here
-- before its row is written there, so it is one over all clusters.
CREATE TABLE shard_name (
    kind          text NOT NULL,
    name          text NOT NULL,
    workspace_id  uuid NOT NULL,
    person_id     uuid,                                    -- the account, of kind person
    claimed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, name)
);
CREATE INDEX shard_name_of ON shard_name (workspace_id, kind, name);

-- Jobs of a workspace that have come to this cluster, by their numbers in the one that it leaves: a
-- mover that goes on brings none of them twice.
CREATE TABLE shard_came_job (
    workspace_id  uuid NOT NULL,
    job_id        bigint NOT NULL,
    PRIMARY KEY (workspace_id, job_id)
);
