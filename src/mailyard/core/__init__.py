"""Clock, ids, errors, limits and backoff: what every other room stands on (standard library only)."""
