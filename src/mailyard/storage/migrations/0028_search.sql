-- Search over received mail. One narrow row a line; what is looked for stands beside it, out of line
-- and unpacked, because a search most often needs the row's ids alone.

CREATE TABLE search_line (
    inbox_id        uuid NOT NULL,
    message_id      uuid NOT NULL,
    retention_days  smallint NOT NULL,
    workspace_id    uuid NOT NULL,
    size_bytes      integer NOT NULL,
    language        text NOT NULL,               -- the text search configuration
    words           tsvector NOT NULL,           -- words in order, and those of fields by prefix
    parts           tsvector NOT NULL,           -- pieces of words, and of scripts without breaks
    PRIMARY KEY (inbox_id, message_id, retention_days)
) PARTITION BY LIST (retention_days);
ALTER TABLE search_line ALTER COLUMN words SET STORAGE EXTERNAL;
ALTER TABLE search_line ALTER COLUMN parts SET STORAGE EXTERNAL;
CREATE INDEX search_line_of_workspace ON search_line (workspace_id, message_id);
CREATE INDEX search_line_by_words ON search_line USING gin (words);
CREATE INDEX search_line_by_parts ON search_line USING gin (parts);

-- How a workspace's mail is indexed. No row: every mail in its own language, parts of long words.
CREATE TABLE search_setting (
    workspace_id  uuid PRIMARY KEY REFERENCES workspace ON DELETE CASCADE,
    language      text NOT NULL DEFAULT 'auto',
    every_word    boolean NOT NULL DEFAULT false
);

-- The languages that a workspace's mail has been indexed in: a search asks in each of them.
CREATE TABLE search_language (
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    language      text NOT NULL,
    PRIMARY KEY (workspace_id, language)
);
