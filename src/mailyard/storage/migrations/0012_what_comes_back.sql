-- What comes back after the hand-over: bounces, complaints and confirmations, by mail or from a
-- provider, with the evidence; whom they stop mail to; and the places that providers report to.

-- Why a delivery stands where it does (sending.bounce.reason), and the name that a provider gave it.
-- Until something else is said of a delivery, that name stands in its answer, as `id=…`.
ALTER TABLE delivery ADD COLUMN reason text NOT NULL DEFAULT '';
ALTER TABLE delivery ADD COLUMN provider_id text;
CREATE INDEX delivery_by_provider_id ON delivery (workspace_id, (coalesce(provider_id, substr(reply, 4))))
    WHERE provider_id IS NOT NULL OR reply LIKE 'id=%';

-- kind: what was told (delivered, bounced, delayed, complained, …); empty: what our own attempt said.
-- An event whose kind is not its state moved nothing: it came late, or is no state at all.
ALTER TABLE delivery_event ADD COLUMN kind text NOT NULL DEFAULT '';
ALTER TABLE delivery_event ADD COLUMN reason text NOT NULL DEFAULT '';
ALTER TABLE delivery_event ADD COLUMN status text NOT NULL DEFAULT '';  -- RFC 3463, such as 5.1.1
ALTER TABLE delivery_event ADD COLUMN source text NOT NULL DEFAULT '';  -- who told: mail, ses, …
ALTER TABLE delivery_event ADD COLUMN message_id uuid;                  -- the mail that told it
ALTER TABLE delivery_event ADD COLUMN event_key bytea;                  -- the same when told again
CREATE UNIQUE INDEX delivery_event_once ON delivery_event (delivery_id, event_key)
    WHERE event_key IS NOT NULL;

-- What became of a campaign's mail after it was accepted. Some rows a campaign, summed by readers,
-- so that workers do not wait for each other.
CREATE TABLE campaign_result (
    campaign_id   uuid NOT NULL REFERENCES campaign ON DELETE CASCADE,
    slot          smallint NOT NULL,
    workspace_id  uuid NOT NULL,
    delivered     bigint NOT NULL DEFAULT 0,
    bounced       bigint NOT NULL DEFAULT 0,
    complained    bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (campaign_id, slot)
) WITH (fillfactor = 50);

ALTER TABLE suppression ADD COLUMN source text NOT NULL DEFAULT '';
ALTER TABLE suppression ADD COLUMN evidence text NOT NULL DEFAULT '';
ALTER TABLE suppression ADD COLUMN delivery_id uuid;
UPDATE suppression SET evidence = reason, reason = 'by_hand';
ALTER TABLE suppression ADD CHECK (reason IN ('hard_bounce', 'complaint', 'unsubscribed', 'by_hand'));
CREATE INDEX suppression_by_workspace ON suppression (workspace_id, id);

-- Where providers send their events to: POST /v1/hooks/{kind}/{token}.
CREATE TABLE provider_hook (
    id             uuid PRIMARY KEY,
    workspace_id   uuid NOT NULL REFERENCES workspace ON DELETE CASCADE,
    kind           text NOT NULL,
    name           text NOT NULL,
    token_hash     bytea NOT NULL UNIQUE,          -- SHA-256 of the address' last part
    sealed_secret  bytea NOT NULL,                 -- what its signatures are checked with
    confirmed_at   timestamptz                     -- when a subscription was confirmed (SES)
);
CREATE INDEX provider_hook_by_workspace ON provider_hook (workspace_id, id);

-- Signatures that were taken, for as long as they are not too old to be taken.
CREATE TABLE provider_hook_seen (
    hook_id    uuid NOT NULL,
    signature  bytea NOT NULL,                     -- the first half of its SHA-256
    until      timestamptz NOT NULL,
    PRIMARY KEY (hook_id, signature)
);
CREATE INDEX provider_hook_seen_until ON provider_hook_seen (until);
