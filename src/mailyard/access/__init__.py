"""Who may do what: workspaces, people, sessions, API keys, the audit log, idempotency keys."""
