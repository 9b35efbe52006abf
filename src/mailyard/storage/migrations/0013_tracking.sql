-- Opens, clicks and unsubscribes; topics that people choose; names that tracking links go by.

-- What a redirect may lead to. The id is a hash of workspace, campaign and address, so that storing
-- an address twice is a no-op.
CREATE TABLE tracked_link (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL,
    campaign_id   uuid,                            -- none: transactional mail
    source_id     uuid,                            -- the pattern that its template has, if it has one
    url           text NOT NULL,
    pattern       boolean NOT NULL DEFAULT false,  -- with variables in it: nobody is led there
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX tracked_link_by_campaign ON tracked_link (workspace_id, campaign_id, id)
    WHERE source_id IS NULL AND campaign_id IS NOT NULL;

-- What was seen of a delivery after it had left; partitioned on its delivery's id.
CREATE TABLE tracking_event (
    delivery_id   uuid NOT NULL,
    id            uuid NOT NULL,                   -- its time is when it was seen
    workspace_id  uuid NOT NULL,
    kind          text NOT NULL,                   -- opened, clicked, unsubscribed
    link_id       uuid,
    machine       text NOT NULL DEFAULT '',        -- the rule by which no person did it
    user_agent    text NOT NULL DEFAULT '',
    network       text NOT NULL DEFAULT '',        -- of the client: /24 or /48, never the address
    PRIMARY KEY (delivery_id, id)
) PARTITION BY RANGE (delivery_id);

-- The first time that a person did it: what counts people, not events.
CREATE TABLE tracking_first (
    delivery_id   uuid NOT NULL,
    kind          text NOT NULL,
    workspace_id  uuid NOT NULL,
    at            timestamptz NOT NULL,
    PRIMARY KEY (delivery_id, kind)
) PARTITION BY RANGE (delivery_id);

CREATE TABLE tracking_domain (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name          text NOT NULL,                   -- ASCII form, lower case
    verified      boolean NOT NULL DEFAULT false,
    finding       text NOT NULL DEFAULT '',        -- of the last look at DNS; empty: all is well
    looked_at     timestamptz,
    UNIQUE (workspace_id, name)
);
CREATE UNIQUE INDEX tracking_domain_verified ON tracking_domain (name) WHERE verified;

-- What every mail of a workspace says of its sender, and how it is tracked when nothing is said.
CREATE TABLE imprint (
    workspace_id      uuid PRIMARY KEY REFERENCES workspace ON DELETE CASCADE,
    physical_address  text NOT NULL DEFAULT '',
    footer_html       text NOT NULL DEFAULT '',
    footer_text       text NOT NULL DEFAULT '',
    track_opens       boolean NOT NULL DEFAULT false,  -- of campaigns that do not say
    track_clicks      boolean NOT NULL DEFAULT false
);

CREATE TABLE topic (
    id            uuid PRIMARY KEY,
    workspace_id  uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    name          text NOT NULL,
    description   text NOT NULL DEFAULT '',
    on_request    boolean NOT NULL DEFAULT false,  -- only who has asked for it gets it
    UNIQUE (workspace_id, name)
);

-- By address, not by contact: who is deleted and imported again has still said no.
CREATE TABLE contact_topic (
    topic_id      uuid NOT NULL REFERENCES topic ON DELETE CASCADE,
    address       text NOT NULL,                   -- normalised
    workspace_id  uuid NOT NULL,
    subscribed    boolean NOT NULL,
    changed_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic_id, address)
);
CREATE INDEX contact_topic_by_address ON contact_topic (workspace_id, address);

ALTER TABLE campaign ADD COLUMN topic_id uuid;
ALTER TABLE campaign ADD COLUMN track_opens boolean NOT NULL DEFAULT false;
ALTER TABLE campaign ADD COLUMN track_clicks boolean NOT NULL DEFAULT false;
ALTER TABLE campaign ADD COLUMN utm text NOT NULL DEFAULT '';  -- utm_source=…&utm_campaign=…
