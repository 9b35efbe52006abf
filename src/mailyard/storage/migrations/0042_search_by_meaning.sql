-- Search by meaning: a vector a line, which a model makes of its text. An option: the column that
-- needs the extension pgvector is added where it is first used (storage/sql/search.sql).

CREATE TABLE search_vector (
    inbox_id        uuid NOT NULL,
    message_id      uuid NOT NULL,
    retention_days  smallint NOT NULL,
    workspace_id    uuid NOT NULL,
    model           smallint NOT NULL,           -- vectors of other models are not to be compared
    bits            bit(256) NOT NULL,           -- the signs of the vector's numbers
    PRIMARY KEY (inbox_id, message_id, retention_days)
) PARTITION BY LIST (retention_days);
CREATE INDEX search_vector_of_workspace ON search_vector (workspace_id, message_id);

ALTER TABLE search_setting ADD COLUMN by_meaning boolean NOT NULL DEFAULT false;
