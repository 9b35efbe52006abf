-- name: insert_template
-- A new template with its version 1, or nothing when the workspace has the name already.
WITH made AS (
    INSERT INTO template (id, workspace_id, name, version)
    VALUES ($2, $1, $3, 1)
    ON CONFLICT (workspace_id, name) DO NOTHING
    RETURNING id
)
INSERT INTO template_version (template_id, version, workspace_id, subject, html, text, variables)
SELECT made.id, 1, $1, $4, $5, $6, $7 FROM made
RETURNING template_id AS id, $3 AS name, version, subject, html, text, variables, created_at;

-- name: insert_version
-- The next version of a template; nothing when the workspace has no such template.
WITH next AS (
    UPDATE template SET version = version + 1
    WHERE workspace_id = $1 AND id = $2
    RETURNING version, name
)
INSERT INTO template_version (template_id, version, workspace_id, subject, html, text, variables)
SELECT $2, next.version, $1, $3, $4, $5, $6 FROM next
RETURNING template_id AS id, (SELECT name FROM next) AS name, version, subject, html, text,
          variables, created_at;

-- name: newest_version
-- The number of a template's newest version.
SELECT version FROM template WHERE workspace_id = $1 AND id = $2;

-- name: get_version
-- One version of a template; the newest when $3 is null.
SELECT t.id, t.name, v.version, v.subject, v.html, v.text, v.variables, v.created_at
FROM template t
JOIN template_version v ON v.template_id = t.id AND v.version = coalesce($3, t.version)
WHERE t.workspace_id = $1 AND t.id = $2 AND v.workspace_id = $1;

-- name: page_templates
-- A page of templates with their newest versions, the newest first, behind template $2.
SELECT t.id, t.name, v.version, v.subject, v.variables, v.created_at
FROM template t
JOIN template_version v ON v.template_id = t.id AND v.version = t.version
WHERE t.workspace_id = $1 AND v.workspace_id = $1 AND ($2::uuid IS NULL OR t.id < $2)
ORDER BY t.id DESC
LIMIT $3;

-- name: page_versions
-- A page of a template's versions, the newest first, before version $3.
SELECT t.id, t.name, v.version, v.subject, v.variables, v.created_at
FROM template t
JOIN template_version v ON v.template_id = t.id
WHERE t.workspace_id = $1 AND t.id = $2 AND v.workspace_id = $1
  AND ($3::integer IS NULL OR v.version < $3)
ORDER BY v.version DESC
LIMIT $4;
