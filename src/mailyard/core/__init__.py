"""Clock, ids, errors, limits, backoff: what every room stands on (standard library only)."""
