-- Conditions of segments, each about the contact `c` of the workspace $1. They are put together by
-- `campaigns/filter/sql.py`, which writes nothing but `and`, `or`, `not`, and the numbers of
-- parameters in place of the words in braces. {source} is `c.attributes`, or `e.properties` of an
-- event. Each may be null, which stands for false.
--
-- What lies in other tables is asked in two ways. In a slice, the contacts ($2, $3], it is a set that
-- is read once, in the order of its index, and joined; of a contact that was drawn for a sample it is
-- a look-up, which is made only if the conditions before it hold.

-- name: equal
-- An attribute is one of some JSON values.
({source} -> {name}::text) = ANY ({values}::jsonb[])

-- name: number
-- An attribute as a number: a JSON number, or text that looks like one, as CSV files bring it.
CASE jsonb_typeof({source} -> {name}::text)
     WHEN 'number' THEN ({source} -> {name}::text)::numeric
     WHEN 'string' THEN CASE WHEN ({source} ->> {name}::text) ~ '^-?[0-9]{1,15}([.][0-9]{1,15})?$'
                             THEN ({source} ->> {name}::text)::numeric END
END

-- name: day
-- An attribute as a day, as it is written: the first ten characters of an ISO date or time. Days
-- are compared as text, which orders them and takes 2026-02-31 without a complaint.
CASE WHEN jsonb_typeof({source} -> {name}::text) = 'string'
          AND ({source} ->> {name}::text) ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]|$)'
     THEN left({source} ->> {name}::text, 10)
END COLLATE "C"

-- name: string
-- An attribute that is text.
CASE WHEN jsonb_typeof({source} -> {name}::text) = 'string' THEN {source} ->> {name}::text END

-- name: exists
-- An attribute is there, and not null.
({source} ->> {name}::text) IS NOT NULL

-- name: in_list
-- The contact stands in a list: in a slice.
EXISTS (SELECT FROM list_member m
        WHERE m.list_id = {list}::uuid AND m.contact_id = c.id
          AND m.contact_id > $2 AND m.contact_id <= $3)

-- name: in_list_one
-- The contact stands in a list: looked up.
(SELECT true FROM list_member m WHERE m.list_id = {list}::uuid AND m.contact_id = c.id LIMIT 1)

-- name: takes_topic
-- The contact has not said no to a topic that everybody gets.
NOT EXISTS (SELECT FROM contact_topic w
            WHERE w.topic_id = {topic}::uuid AND w.address = c.address AND NOT w.subscribed)

-- name: asked_for_topic
-- The contact has said yes to a topic that only who asks for it gets.
EXISTS (SELECT FROM contact_topic w
        WHERE w.topic_id = {topic}::uuid AND w.address = c.address AND w.subscribed)

-- name: takes_topic_one
-- The contact has not said no to a topic that everybody gets: looked up.
coalesce((SELECT w.subscribed FROM contact_topic w
          WHERE w.topic_id = {topic}::uuid AND w.address = c.address LIMIT 1), true)

-- name: asked_for_topic_one
-- The contact has said yes to a topic that only who asks for it gets: looked up.
(SELECT w.subscribed FROM contact_topic w
 WHERE w.topic_id = {topic}::uuid AND w.address = c.address LIMIT 1)

-- name: did
-- The contact did something, ever or since: in a slice.
EXISTS (SELECT FROM contact_event e
        WHERE e.contact_id = c.id AND e.contact_id > $2 AND e.contact_id <= $3
          AND e.kind = {kind}::text AND e.id >= {since}::uuid AND {more})

-- name: did_one
-- The contact did something, ever or since: looked up.
(SELECT true FROM contact_event e
 WHERE e.contact_id = c.id AND e.kind = {kind}::text AND e.id >= {since}::uuid AND {more} LIMIT 1)

-- name: did_often
-- The contact did something so many times: in a slice.
c.id IN (SELECT e.contact_id FROM contact_event e
         WHERE e.contact_id > $2 AND e.contact_id <= $3
           AND e.kind = {kind}::text AND e.id >= {since}::uuid AND {more}
         GROUP BY e.contact_id HAVING count(*) >= {times}::bigint)

-- name: did_often_one
-- The contact did something so many times: looked up.
(SELECT count(*) FROM (SELECT FROM contact_event e
                       WHERE e.contact_id = c.id AND e.kind = {kind}::text
                         AND e.id >= {since}::uuid AND {more}
                       LIMIT {times}::bigint) AS found) >= {times}::bigint
