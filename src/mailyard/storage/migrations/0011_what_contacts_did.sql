-- What contacts did: mails opened, links clicked, and events of the workspace's own, such as bought.
-- The time in the id is when it happened; a table is parted on it, as deliveries are. The one index
-- says whether a contact did something since a day, and lists all that one contact did.

CREATE TABLE contact_event (
    id            uuid NOT NULL,
    workspace_id  uuid NOT NULL,
    contact_id    uuid NOT NULL,
    kind          text COLLATE "C" NOT NULL,       -- opened, clicked, or a name of the workspace's own
    delivery_id   uuid,                            -- the mail that was opened or clicked in
    campaign_id   uuid,
    properties    jsonb,                           -- null: none
    PRIMARY KEY (contact_id, kind, id)
) PARTITION BY RANGE (id);
