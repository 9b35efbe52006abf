"""What carries a wake-up: this process alone, PostgreSQL's NOTIFY, Redis, or Redis as long as it is
there."""
