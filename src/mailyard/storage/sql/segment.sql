-- Segments, and who is in them. {filter} is a condition of `campaigns/filter/sql.py`.
--
-- A contact whose id ends with six zero bits is an anchor: one in 64, whoever it is and whenever it
-- came, kept by a small index. Anchors are what cuts a workspace of millions into slices without
-- reading it, and where a sample begins.

-- name: insert_segment
-- A new segment, or nothing when the name is taken.
INSERT INTO segment (id, workspace_id, name, filter) VALUES ($2, $1, $3, $4)
ON CONFLICT (workspace_id, name) DO NOTHING
RETURNING id, name, filter, created_at, updated_at;

-- name: get_segment
-- One segment.
SELECT id, name, filter, created_at, updated_at FROM segment WHERE workspace_id = $1 AND id = $2;

-- name: find_segment_by_name
-- The segment of this name.
SELECT id FROM segment WHERE workspace_id = $1 AND name = $2;

-- name: page_segments
-- Newest first, behind segment $2.
SELECT id, name, filter, created_at, updated_at FROM segment
WHERE workspace_id = $1 AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC LIMIT $3;

-- name: update_segment
-- Changes what is given (null leaves it as it is).
UPDATE segment SET name = coalesce($3, name), filter = coalesce($4, filter), updated_at = now()
WHERE workspace_id = $1 AND id = $2
RETURNING id, name, filter, created_at, updated_at;

-- name: delete_segment
-- Removes a segment.
DELETE FROM segment WHERE workspace_id = $1 AND id = $2 RETURNING id;

-- name: find_lists
-- The lists that have one of these names or ids.
SELECT id, name FROM contact_list
WHERE workspace_id = $1 AND (name = ANY ($2::text[]) OR id = ANY ($3::uuid[]));

-- name: find_topics
-- The topics that have one of these names or ids.
SELECT id, name, on_request FROM topic
WHERE workspace_id = $1 AND (name = ANY ($2::text[]) OR id = ANY ($3::uuid[]));

-- name: planning
-- How statements are planned now.
SELECT current_setting('plan_cache_mode') AS plan_cache_mode,
       current_setting('enable_nestloop') AS enable_nestloop,
       current_setting('work_mem') AS work_mem;

-- name: plan_so
-- For this transaction: how statements are planned. For slices, each for its own bounds, and what it
-- reads of other tables is read once and hashed: a nested loop, which the planner likes for what it
-- takes for few rows, would look each contact up in tables that are larger than the memory.
SELECT set_config('plan_cache_mode', $1, true), set_config('enable_nestloop', $2, true),
       set_config('work_mem', $3, true);

-- name: count_anchors
-- How many anchors the workspace has.
SELECT count(*) FROM contact WHERE workspace_id = $1 AND get_byte(uuid_send(id), 15) < 4;

-- name: every_anchor
-- The anchors of the workspace, every $2nd of them, in order.
SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM contact
                WHERE workspace_id = $1 AND get_byte(uuid_send(id), 15) < 4) AS anchor
WHERE place % $2::bigint = 0 ORDER BY id;

-- name: sample
-- What stands behind the anchors $2, up to $3 contacts each: how many, how many match, and the sums
-- that the error is computed from. A look-up that is not needed is not made.
SELECT count(*) AS runs, sum(looked)::bigint AS looked, coalesce(sum(matched), 0)::bigint AS matched,
       sum(looked * looked)::bigint AS looked_looked,
       coalesce(sum(looked * matched), 0)::bigint AS looked_matched,
       coalesce(sum(matched * matched), 0)::bigint AS matched_matched
FROM (SELECT anchor.id, count(*) AS looked, count(*) FILTER (WHERE {filter}) AS matched
      FROM unnest($2::uuid[]) AS anchor (id)
      CROSS JOIN LATERAL (SELECT id, address, name, attributes, created_at FROM contact
                          WHERE workspace_id = $1 AND id > anchor.id
                          ORDER BY id LIMIT $3::bigint) AS c
      GROUP BY anchor.id) AS run;

-- name: count_slice
-- How many contacts of the slice ($2, $3] match.
SELECT count(*) FROM contact AS c
WHERE c.workspace_id = $1 AND c.id > $2 AND c.id <= $3 AND {filter};

-- name: end_of_window
-- The last of the $3 contacts behind $2; null when there are fewer.
SELECT id FROM contact WHERE workspace_id = $1 AND id > $2 ORDER BY id OFFSET $3::bigint - 1 LIMIT 1;

-- name: cut_slice
-- The contacts of the slice ($2, $3] that match and were there at {until}, in the order of their ids,
-- with their time zones.
SELECT c.id AS contact_id, coalesce(c.attributes ->> 'timezone', '') AS zone FROM contact AS c
WHERE c.workspace_id = $1 AND c.id > $2 AND c.id <= $3 AND c.created_at <= {until}::timestamptz
  AND {filter}
ORDER BY c.id LIMIT {limit}::bigint;

-- name: page_of_slice
-- The contacts of the slice ($2, $3] that match, in the order of their ids.
SELECT c.id AS contact_id, c.id, c.address, c.name, c.attributes, c.created_at, c.updated_at
FROM contact AS c
WHERE c.workspace_id = $1 AND c.id > $2 AND c.id <= $3 AND {filter}
ORDER BY c.id LIMIT {limit}::bigint;
