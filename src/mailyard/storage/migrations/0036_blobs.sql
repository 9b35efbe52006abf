-- Mail that is too large for its row lies in a blob store.

-- The key of the bytes there; `raw` is empty then. Null: the bytes are in `raw`.
ALTER TABLE message ADD COLUMN blob text;

-- Blobs whose row was deleted, or has moved to another class: whoever deletes the blob looks first
-- whether a row still names it.
CREATE TABLE blob_gone (
    key           text PRIMARY KEY,
    workspace_id  uuid NOT NULL,
    gone_at       timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION note_gone_blob() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO blob_gone (key, workspace_id) VALUES (OLD.blob, OLD.workspace_id)
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END
$$;
CREATE TRIGGER message_blob_gone AFTER DELETE ON message
    FOR EACH ROW WHEN (OLD.blob IS NOT NULL) EXECUTE FUNCTION note_gone_blob();
