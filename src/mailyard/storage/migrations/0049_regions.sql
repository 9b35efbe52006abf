-- The home region of a workspace; null: that of its database, from before there were regions.
ALTER TABLE workspace ADD COLUMN region text;

-- How often a region was taken over by another site. A site whose database knows of a smaller number
-- than its neighbours is no longer the region.
CREATE TABLE region_term (
    region    text PRIMARY KEY,
    epoch     bigint NOT NULL,
    site      text NOT NULL,
    position  text NOT NULL,                       -- the log of the lost primary, as far as it came
    taken_at  timestamptz NOT NULL DEFAULT now()
);
