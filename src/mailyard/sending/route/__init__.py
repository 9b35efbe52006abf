"""Through whom a mail leaves: routes, failover, a circuit breaker for each provider; all pure."""
