-- The lease of a leader: when the one of the epoch has last said that it lives. Null, or of another
-- epoch: the leader is of a version that renews none.
ALTER TABLE leader ADD COLUMN lease_epoch bigint, ADD COLUMN renewed_at timestamptz;

-- Builds that know fewer migrations than this cannot work with what the migration has left; null:
-- all can that the one before could.
ALTER TABLE schema_migration ADD COLUMN breaks_below integer;
