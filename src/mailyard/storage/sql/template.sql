-- part: version
-- A version with its template.
SELECT t.id, t.name, t.kind, t.version AS published, t.newest, v.version, v.subject, v.html, v.mjml,
       v.text, v.inline_css, v.variables, v.author, v.created_at
FROM template t
JOIN template_version v ON v.template_id = t.id AND v.workspace_id = t.workspace_id

-- part: line
-- A version without its bodies.
SELECT t.id, t.name, t.kind, t.version AS published, t.newest, v.version, v.subject, v.variables,
       v.author, v.created_at,
       EXISTS (SELECT FROM template_draft d
               WHERE d.template_id = t.id AND d.workspace_id = t.workspace_id) AS has_draft

-- name: insert_template
-- A new template without a version, or nothing when the workspace has the name already.
INSERT INTO template (id, workspace_id, name, kind, version)
VALUES ($2, $1, $3, $4, 0)
ON CONFLICT (workspace_id, name) DO NOTHING
RETURNING id;

-- name: insert_version
-- The next version of a template, in use from now on, with what it was built with ($13 ids, $14
-- versions); nothing when the workspace has no such template.
WITH next AS (
    UPDATE template SET newest = greatest(newest, version) + 1, version = greatest(newest, version) + 1
    WHERE workspace_id = $1 AND id = $2
    RETURNING newest
), used AS (
    INSERT INTO template_use (template_id, version, workspace_id, used_id, used_version)
    SELECT $2, next.newest, $1, u.id, u.version
    FROM next, unnest($13::uuid[], $14::integer[]) AS u (id, version)
)
INSERT INTO template_version (template_id, version, workspace_id, subject, html, mjml, text,
                              inline_css, variables, built_html, built_text, origins, author)
SELECT $2, next.newest, $1, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM next
RETURNING version;

-- name: use_version
-- Put version $3 into use; the number that was in use before, or nothing when there is no such one.
WITH before AS (
    SELECT id, version FROM template WHERE workspace_id = $1 AND id = $2 FOR UPDATE
)
UPDATE template t SET version = $3
FROM before
WHERE t.workspace_id = $1 AND t.id = before.id
  AND EXISTS (SELECT FROM template_version v
              WHERE v.workspace_id = $1 AND v.template_id = $2 AND v.version = $3)
RETURNING before.version;

-- name: published_by_id
-- The version of a template that is in use, what the template is, and how it speaks.
SELECT t.id, t.name, t.kind, t.version, w.locale
FROM template t JOIN workspace w ON w.id = t.workspace_id
WHERE t.workspace_id = $1 AND t.id = $2;

-- name: published_by_name
-- The same by name.
SELECT t.id, t.name, t.kind, t.version, w.locale
FROM template t JOIN workspace w ON w.id = t.workspace_id
WHERE t.workspace_id = $1 AND t.name = $2;

-- name: get_version
-- One version of a template; the one in use when $3 is null.
-- use: version
WHERE t.workspace_id = $1 AND t.id = $2 AND v.workspace_id = $1
  AND v.version = coalesce($3, t.version);

-- name: get_built
-- What is rendered of one version.
SELECT subject, coalesce(built_html, html) AS html, coalesce(built_text, text) AS text, origins
FROM template_version WHERE workspace_id = $1 AND template_id = $2 AND version = $3;

-- name: page_templates
-- A page of templates with the versions in use, the newest first, behind template $2; of the name
-- $4 alone when there is one.
-- use: line
FROM template t
LEFT JOIN template_version v ON v.template_id = t.id AND v.version = t.version
                            AND v.workspace_id = t.workspace_id
WHERE t.workspace_id = $1 AND ($2::uuid IS NULL OR t.id < $2) AND ($4::text IS NULL OR t.name = $4)
ORDER BY t.id DESC
LIMIT $3;

-- name: page_versions
-- A page of a template's versions, the newest first, before version $3.
-- use: line
FROM template t
JOIN template_version v ON v.template_id = t.id AND v.workspace_id = t.workspace_id
WHERE t.workspace_id = $1 AND t.id = $2 AND ($3::integer IS NULL OR v.version < $3)
ORDER BY v.version DESC
LIMIT $4;

-- name: parts_by_name
-- Layouts and blocks of these names, as they are published.
SELECT t.id, t.name, t.kind, v.version, v.html, v.mjml, v.text
FROM template t
JOIN template_version v ON v.template_id = t.id AND v.version = t.version
                       AND v.workspace_id = t.workspace_id
WHERE t.workspace_id = $1 AND t.name = ANY($2::text[]);

-- name: uses
-- What version $3 of a template was built with, and which version of that is published now.
SELECT u.used_id AS id, p.name, p.kind, u.used_version AS version, p.version AS published
FROM template_use u
JOIN template p ON p.id = u.used_id AND p.workspace_id = u.workspace_id
WHERE u.workspace_id = $1 AND u.template_id = $2 AND u.version = $3
ORDER BY p.name;

-- name: users
-- The templates whose version in use was built with template $2, and with which version of it.
SELECT t.id, t.name, t.kind, u.used_version AS version
FROM template_use u
JOIN template t ON t.id = u.template_id AND t.version = u.version AND t.workspace_id = u.workspace_id
WHERE u.workspace_id = $1 AND u.used_id = $2
ORDER BY t.name
LIMIT $3;

-- name: save_draft
-- What is being written of a template; nothing when the workspace has no such template.
INSERT INTO template_draft (template_id, workspace_id, subject, html, mjml, text, inline_css, author)
SELECT t.id, t.workspace_id, $3, $4, $5, $6, $7, $8 FROM template t
WHERE t.workspace_id = $1 AND t.id = $2
ON CONFLICT (template_id) DO UPDATE
SET subject = excluded.subject, html = excluded.html, mjml = excluded.mjml, text = excluded.text,
    inline_css = excluded.inline_css, author = excluded.author, edited_at = now()
RETURNING edited_at;

-- name: get_draft
-- The draft of a template.
SELECT t.id, t.name, t.kind, t.version AS published, d.subject, d.html, d.mjml, d.text,
       d.inline_css, d.author, d.edited_at
FROM template_draft d
JOIN template t ON t.id = d.template_id AND t.workspace_id = d.workspace_id
WHERE d.workspace_id = $1 AND d.template_id = $2;

-- name: drop_draft
-- Forget the draft of a template; when it was edited last.
DELETE FROM template_draft WHERE workspace_id = $1 AND template_id = $2 RETURNING edited_at;
