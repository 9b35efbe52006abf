-- Own delivery to MX: how destinations are written to, what MTA-STS asks for, TLS results, and the
-- addresses that mail leaves from.

-- One row for a place as a source address sees it, what all workers know of it together. Workers
-- write what they learn, and read what others have learnt (noted_at) and what people say
-- (resumed_at, paused_until).
CREATE TABLE shaping_site (
    key          text PRIMARY KEY,                 -- site:<source>:<place>
    source       text NOT NULL,
    place        text NOT NULL,
    receiver     text NOT NULL,
    share        double precision NOT NULL DEFAULT 1,
    slowed_at    timestamptz,
    paused_until timestamptz,
    why          text NOT NULL DEFAULT '',
    refusals     integer NOT NULL DEFAULT 0,
    probe_at     timestamptz,
    resumed_at   timestamptz,
    accepted     bigint NOT NULL DEFAULT 0,
    later        bigint NOT NULL DEFAULT 0,
    never        bigint NOT NULL DEFAULT 0,
    unknown      bigint NOT NULL DEFAULT 0,
    answers      jsonb NOT NULL DEFAULT '[]',      -- the last ones, newest first: {at, text, outcome}
    noted_at     timestamptz,                      -- when share or pause changed
    updated_at   timestamptz NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX shaping_site_noted ON shaping_site (noted_at) WHERE noted_at IS NOT NULL;
CREATE INDEX shaping_site_resumed ON shaping_site (resumed_at) WHERE resumed_at IS NOT NULL;

-- What happened to a site, for the page and the alerts. Kept for two weeks.
CREATE TABLE shaping_event (
    id     uuid PRIMARY KEY,
    key    text NOT NULL,
    kind   text NOT NULL,
    rule   text NOT NULL,
    answer text NOT NULL,
    share  double precision NOT NULL,
    until  timestamptz,
    text   text NOT NULL
);
CREATE INDEX shaping_event_key ON shaping_event (key, id DESC);

-- MTA-STS policies of other domains (RFC 8461), and the last fetch of each that failed.
CREATE TABLE sts_policy (
    domain     text PRIMARY KEY,
    record_id  text,
    mode       text,
    max_age_s  bigint,
    mx         text[],
    fetched_at timestamptz,
    failed_id  text,
    failed_at  timestamptz,
    failure    text NOT NULL DEFAULT '',
    changed_at timestamptz NOT NULL
);
CREATE INDEX sts_policy_changed ON sts_policy (changed_at);

-- Sessions of a day by domain, policy, host and result (RFC 8460), and which days were reported.
CREATE TABLE tls_result (
    day         date NOT NULL,
    domain      text NOT NULL,
    policy_type text NOT NULL,
    host        text NOT NULL,
    result      text NOT NULL,
    sessions    bigint NOT NULL,
    PRIMARY KEY (day, domain, policy_type, host, result)
) WITH (fillfactor = 70);

-- Source addresses: what their warm-up has lost, why one is paused, and what went by day and by
-- group of receivers.
CREATE TABLE source_state (
    name         text PRIMARY KEY,
    lost_days    integer NOT NULL DEFAULT 0,
    paused_until date,
    why          text NOT NULL DEFAULT '',
    changed_at   timestamptz NOT NULL
);

CREATE TABLE source_count (
    day       date NOT NULL,
    name      text NOT NULL,
    receivers text NOT NULL,                       -- the group that it is counted as
    mails     bigint NOT NULL,
    answers   bigint NOT NULL,
    bad       bigint NOT NULL,
    PRIMARY KEY (day, name, receivers)
) WITH (fillfactor = 50);
