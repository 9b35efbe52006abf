-- Tables of mail that other systems sent, taken over: how far each has come.
CREATE TABLE history_import (
    workspace_id   uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    source         text NOT NULL,              -- the caller's name for the other system
    fingerprint    bytea NOT NULL,             -- of the file and of how it is read
    rows           bigint NOT NULL DEFAULT 0,  -- all before are imported or refused
    line           bigint NOT NULL DEFAULT 0,  -- where the last of these stands in the file
    imported       bigint NOT NULL DEFAULT 0,
    already_there  bigint NOT NULL DEFAULT 0,
    refused        bigint NOT NULL DEFAULT 0,
    started_at     timestamptz NOT NULL DEFAULT now(),
    finished_at    timestamptz,
    PRIMARY KEY (workspace_id, source, fingerprint)
);
