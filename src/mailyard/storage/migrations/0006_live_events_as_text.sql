-- A batch of live events is written once and read as it is, mostly by nobody: to take it apart for
-- jsonb and to pack it costs more than everything else about it.

ALTER TABLE live_event ALTER COLUMN items TYPE text;
ALTER TABLE live_event ALTER COLUMN items SET STORAGE EXTERNAL;
