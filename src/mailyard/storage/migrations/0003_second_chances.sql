-- Whoever was buried because its workers died may be innocent: it comes back by itself, alone, a few
-- times, later each time (docs/decisions/0009-burying.md).

ALTER TABLE job ADD COLUMN chances smallint NOT NULL DEFAULT 0;       -- burials it came back from
ALTER TABLE job_dead ADD COLUMN chances smallint NOT NULL DEFAULT 0;
ALTER TABLE job_dead ADD COLUMN again_at timestamptz;                 -- null: only when redriven
CREATE INDEX job_dead_again ON job_dead (again_at) WHERE again_at IS NOT NULL;
