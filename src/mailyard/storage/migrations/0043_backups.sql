-- What became of each backup, and of each restore that was made to see whether it can be.

CREATE TABLE backup_run (
    id           uuid PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('base', 'drill')),
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz NOT NULL,
    good         boolean NOT NULL,
    stored_bytes bigint NOT NULL,
    detail       jsonb NOT NULL
);
