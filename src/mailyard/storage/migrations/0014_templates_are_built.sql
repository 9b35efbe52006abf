-- Templates have drafts, layouts and blocks, MJML; what is rendered is built at publishing.

ALTER TABLE template
    ADD COLUMN kind   text NOT NULL DEFAULT 'email' CHECK (kind IN ('email', 'layout', 'block')),
    ADD COLUMN newest integer NOT NULL DEFAULT 0;   -- the highest version; `version` is the one in use
UPDATE template SET newest = version;
COMMENT ON COLUMN template.version IS 'the published version; 0: none yet';

ALTER TABLE template_version
    ADD COLUMN mjml       text NOT NULL DEFAULT '',
    ADD COLUMN inline_css boolean NOT NULL DEFAULT true,
    ADD COLUMN built_html text,                    -- what is rendered; null: html as it is
    ADD COLUMN built_text text,                    -- what is rendered; null: text as it is
    ADD COLUMN origins    text,                    -- JSON: where the tags of built sources were written
    ADD COLUMN author     text NOT NULL DEFAULT '';

-- What is being written: free to be wrong, seen by nobody but its editors.
CREATE TABLE template_draft (
    template_id   uuid PRIMARY KEY REFERENCES template ON DELETE CASCADE,
    workspace_id  uuid NOT NULL,
    subject       text NOT NULL,
    html          text NOT NULL,
    mjml          text NOT NULL,
    text          text NOT NULL,
    inline_css    boolean NOT NULL,
    author        text NOT NULL,
    edited_at     timestamptz NOT NULL DEFAULT now()
);

-- Which version of which layout or block a version was built with.
CREATE TABLE template_use (
    template_id   uuid NOT NULL,
    version       integer NOT NULL,
    workspace_id  uuid NOT NULL,
    used_id       uuid NOT NULL REFERENCES template ON DELETE CASCADE,
    used_version  integer NOT NULL,
    PRIMARY KEY (template_id, version, used_id),
    FOREIGN KEY (template_id, version) REFERENCES template_version ON DELETE CASCADE
);
CREATE INDEX template_use_by_used ON template_use (workspace_id, used_id);
