-- What the rules found in a message: codes, links, parcels, where the reply ends. Found when somebody
-- first asks, kept as long as the message.
CREATE TABLE message_meaning (
    message_id      uuid NOT NULL,
    retention_days  smallint NOT NULL,             -- the message's class
    workspace_id    uuid NOT NULL,
    rules_version   smallint NOT NULL,             -- of the rules that found it
    findings        text NOT NULL,                 -- JSON, see protocol/meaning/finding.py
    PRIMARY KEY (message_id, retention_days)
) PARTITION BY LIST (retention_days);
