-- A return-path name of a domain's own, and what the last check of its records found.

ALTER TABLE domain
    ADD COLUMN return_path        text NOT NULL DEFAULT '',     -- ASCII form; none: the shared one
    ADD COLUMN return_path_ready  boolean NOT NULL DEFAULT false,
    ADD COLUMN verdicts           text NOT NULL DEFAULT '[]',   -- JSON, as protocol/dns_records has it
    ADD COLUMN checked_at         timestamptz;
