"""What carries a wake-up: this process alone, or PostgreSQL's NOTIFY."""
