"""The scheduler's duties, one a file."""
