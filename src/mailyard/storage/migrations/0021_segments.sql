-- Segments: filters over contacts, which campaigns may be sent to instead of a list.

CREATE TABLE segment (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name          text NOT NULL,
    filter        text NOT NULL,                   -- as campaigns/filter reads it
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (workspace_id, name)
);
CREATE INDEX segment_by_workspace ON segment (workspace_id, id);

-- One contact in 64, by the random end of its id: where samples begin, and slices end.
CREATE INDEX contact_anchor ON contact (workspace_id, id) WHERE get_byte(uuid_send(id), 15) < 4;

-- Who is in a chunk of a campaign to a segment is kept in the chunk's `members`
-- (docs/decisions/0019-segments.md).
ALTER TABLE campaign ALTER list_id DROP NOT NULL;
ALTER TABLE campaign ADD COLUMN segment_id uuid;
ALTER TABLE campaign ADD COLUMN audience text;     -- the segment's filter as it was at the first start
ALTER TABLE campaign ADD CONSTRAINT campaign_has_one_audience
    CHECK ((list_id IS NULL) <> (segment_id IS NULL));
ALTER TABLE campaign_chunk ALTER members SET STORAGE EXTERNAL;  -- ids do not pack
