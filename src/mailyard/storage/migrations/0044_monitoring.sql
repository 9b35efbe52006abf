-- Decisions of the autoscaler with what they were made from: why 3 became 5.
CREATE TABLE scale_decision (
    id          uuid PRIMARY KEY,                      -- its time is the decision's
    actuator    text NOT NULL,                         -- local, kubernetes, dry-run
    group_name  text NOT NULL,
    kind        text NOT NULL,                         -- up, down, blocked, advise
    was         integer NOT NULL,
    became      integer NOT NULL,
    wanted      integer,                               -- by the rule of capacity
    reason      text NOT NULL,
    inputs      jsonb NOT NULL
);

-- What was or is not as it should be. One that lasts is one row, whatever its level becomes.
CREATE TABLE alert (
    id          uuid PRIMARY KEY,
    rule        text NOT NULL,
    subject     text NOT NULL,                         -- a queue, a role; empty: the installation
    level       text NOT NULL CHECK (level IN ('warning', 'critical')),
    worst       text NOT NULL CHECK (worst IN ('warning', 'critical')),
    value       double precision NOT NULL,
    about       text NOT NULL,
    since       timestamptz NOT NULL,                  -- when the metric passed the level
    started_at  timestamptz NOT NULL DEFAULT now(),
    changed_at  timestamptz NOT NULL DEFAULT now(),
    ended_at    timestamptz
);
CREATE UNIQUE INDEX alert_open ON alert (rule, subject) WHERE ended_at IS NULL;

-- What is told of an alert, over which channel: written with the change that it tells of.
CREATE TABLE alert_notice (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alert_id  uuid NOT NULL REFERENCES alert ON DELETE CASCADE,
    event     text NOT NULL,                           -- warning, critical, resolved
    channel   text NOT NULL,                           -- mail, webhook, slack
    value     double precision NOT NULL,
    at        timestamptz NOT NULL DEFAULT now(),
    due_at    timestamptz NOT NULL DEFAULT now(),
    tries     integer NOT NULL DEFAULT 0,
    sent_at   timestamptz,
    error     text NOT NULL DEFAULT ''
);
CREATE INDEX alert_notice_due ON alert_notice (due_at) WHERE sent_at IS NULL;
CREATE INDEX alert_notice_of ON alert_notice (alert_id);
