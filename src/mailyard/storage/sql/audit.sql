-- name: record
-- Adds rows, in order; the arrays are one row each across.
INSERT INTO audit_log (id, workspace_id, actor_kind, actor, action, subject, before, after)
SELECT id, workspace_id, actor_kind, actor, action, subject, before::jsonb, after::jsonb
  FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[],
              $7::text[], $8::text[])
    AS row (id, workspace_id, actor_kind, actor, action, subject, before, after);

-- name: list_sent_emails
-- Emails of a workspace in the id range [$2, $3) that say who sent them, newest first; the filters hold
-- when not null: the actor $4, the email $5.
SELECT id, actor_kind, actor, sender, subject, type, send_at
  FROM email
 WHERE workspace_id = $1 AND id >= $2 AND id < $3 AND actor IS NOT NULL
   AND ($4::text IS NULL OR actor = $4)
   AND ($5::uuid IS NULL OR id = $5)
 ORDER BY id DESC
 LIMIT $6;

-- name: list_entries
-- Entries of a workspace in the id range [$2, $3), newest first; the filters $4 to $6 hold when not
-- null: the actor, the action (or its first word, as in "inbox"), the subject.
SELECT id, actor_kind, actor, action, subject, before::text AS before, after::text AS after
  FROM audit_log
 WHERE workspace_id = $1 AND id >= $2 AND id < $3
   AND ($4::text IS NULL OR actor = $4)
   AND ($5::text IS NULL OR action = $5 OR split_part(action, '.', 1) = $5)
   AND ($6::text IS NULL OR subject = $6)
 ORDER BY id DESC
 LIMIT $7;
