"""Where the buckets of the rate limiter live."""
