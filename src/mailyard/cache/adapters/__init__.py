"""Where values are kept: in this process, or in PostgreSQL."""
