-- When a campaign's mail goes: at an instant, at a time on each recipient's clock, outside quiet
-- hours, and to whom so many others have gone lately.

ALTER TABLE campaign ADD COLUMN send_at timestamptz;                 -- a start before it waits
ALTER TABLE campaign ADD COLUMN local_time timestamp;                -- on each recipient's clock
ALTER TABLE campaign DROP CONSTRAINT campaign_state_check;
ALTER TABLE campaign ADD CONSTRAINT campaign_state_check
    CHECK (state IN ('draft', 'scheduled', 'running', 'paused', 'cancelled', 'finished'));

-- A chunk of contacts of one time zone. Whose zone changes later stays in his chunk: who is in which
-- is decided once, for the chunk's number is in his delivery's id.
ALTER TABLE campaign_chunk ADD COLUMN zone text;
ALTER TABLE campaign_chunk ADD COLUMN due_at timestamptz;            -- not before
ALTER TABLE campaign_chunk ADD COLUMN members uuid[];                -- inside (after, last]
ALTER TABLE campaign_chunk ADD COLUMN drawn integer NOT NULL DEFAULT 0;  -- of the daily quota

-- Who is about to get a campaign, where the workspace has a frequency cap: until his delivery has
-- its row nothing else tells. Swept after two days.
CREATE TABLE campaign_turn (
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    contact_id    uuid NOT NULL,
    campaign_id   uuid NOT NULL,
    at            timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, contact_id, campaign_id)
);
CREATE INDEX campaign_turn_by_age ON campaign_turn (at);
