-- What receivers report of mail in our domains' names: DMARC (RFC 7489, RFC 9990) and TLS (RFC 8460);
-- and which reports of our own deliveries went out. None of it is anybody's mail.
CREATE TABLE dmarc_report (
    id              uuid PRIMARY KEY,
    workspace_id    uuid NOT NULL,
    domain          text NOT NULL,
    organisation    text NOT NULL,                 -- who reports
    email           text NOT NULL,
    report_id       text NOT NULL,
    begins_at       timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    policy          text NOT NULL,                 -- JSON: the record as the receiver saw it
    messages        bigint NOT NULL,
    passed          bigint NOT NULL,
    skipped         integer NOT NULL,              -- rows that made no sense
    standing        text NOT NULL                  -- who sent the report, by its own mail's checks
);
CREATE UNIQUE INDEX dmarc_report_once
    ON dmarc_report (workspace_id, domain, organisation, report_id, begins_at);
CREATE INDEX dmarc_report_by_id ON dmarc_report (workspace_id, id);

CREATE TABLE dmarc_row (
    report          uuid NOT NULL REFERENCES dmarc_report ON DELETE CASCADE,
    place           integer NOT NULL,
    workspace_id    uuid NOT NULL,
    domain          text NOT NULL,
    day             date NOT NULL,
    source          text NOT NULL,
    messages        bigint NOT NULL,
    disposition     text NOT NULL,
    dkim            boolean NOT NULL,
    spf             boolean NOT NULL,
    header_from     text NOT NULL,
    envelope_from   text NOT NULL,
    PRIMARY KEY (report, place)
);
CREATE INDEX dmarc_row_by_day ON dmarc_row (workspace_id, domain, day);

CREATE TABLE tls_report (
    id              uuid PRIMARY KEY,
    workspace_id    uuid NOT NULL,
    domain          text NOT NULL,
    organisation    text NOT NULL,
    report_id       text NOT NULL,
    begins_at       timestamptz NOT NULL,
    ends_at         timestamptz NOT NULL,
    succeeded       bigint NOT NULL,
    failed          bigint NOT NULL,
    failures        text NOT NULL,                 -- JSON: result, host, sessions
    standing        text NOT NULL
);
CREATE UNIQUE INDEX tls_report_once
    ON tls_report (workspace_id, domain, organisation, report_id, begins_at);
CREATE INDEX tls_report_by_id ON tls_report (workspace_id, id);

-- Reports of our own deliveries (tls_result) that were handed over, or of which a domain wants none.
CREATE TABLE tls_report_sent (
    day             date NOT NULL,
    domain          text NOT NULL,
    outcome         text NOT NULL,                 -- sent, unwanted, failed
    detail          text NOT NULL,
    tries           integer NOT NULL DEFAULT 1,
    at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, domain)
);
