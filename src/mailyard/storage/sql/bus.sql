-- name: notify
-- Wakes the listeners of channel $1; $2 is topics, one a line.
SELECT pg_notify($1, $2);

-- name: still_there
-- Does the listening connection still answer?
SELECT 1;
