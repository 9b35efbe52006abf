-- A batch of live events is written once and read as it is, mostly by nobody: to take it apart for
-- jsonb and to pack it costs more than everything else about it.

ALTER TABLE live_event ALTER COLUMN items TYPE text;
ALTER TABLE live_event ALTER COLUMN items SET STORAGE EXTERNAL;

-- What API processes of the version before ask, which may run on while they are being replaced.
CREATE FUNCTION jsonb_array_length(items text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT json_array_length(items::json)
$$;
