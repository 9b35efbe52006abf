-- An accepted email is its own line of the audit log: who sent it stands in its row, for a row beside
-- it would be a third of what accepting costs (docs/decisions/0010-audit.md).

ALTER TABLE email ADD COLUMN actor_kind text;                         -- as in audit_log
ALTER TABLE email ADD COLUMN actor text;
