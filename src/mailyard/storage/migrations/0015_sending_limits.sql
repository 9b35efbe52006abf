-- What a workspace allows itself: its clock, its quiet hours, how much a second and a day, and how
-- many campaigns one contact gets. A workspace without a row has no limits, and UTC.

CREATE TABLE sending_limits (
    workspace_id           uuid PRIMARY KEY REFERENCES workspace ON DELETE CASCADE,
    time_zone              text NOT NULL,          -- as in the IANA database
    quiet_from             time,                   -- local to the recipient
    quiet_until            time,
    emails_per_s           double precision,
    emails_per_day         bigint,                 -- of the workspace's own days
    campaigns_per_contact  integer,
    campaigns_days         integer,
    CHECK ((quiet_from IS NULL) = (quiet_until IS NULL)),
    CHECK ((campaigns_per_contact IS NULL) = (campaigns_days IS NULL))
);

-- What was used of it; only for workspaces that have a rate or a quota, whose sending waits for it.
CREATE TABLE sending_use (
    workspace_id  uuid PRIMARY KEY REFERENCES workspace ON DELETE CASCADE,
    day           date NOT NULL,
    used          bigint NOT NULL,                 -- recipients since `day` began
    tat           timestamptz NOT NULL             -- theoretical arrival time of GCRA
) WITH (fillfactor = 50);
