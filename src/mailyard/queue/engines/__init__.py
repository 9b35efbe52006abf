"""Where jobs are kept: this process's memory (for tests), or PostgreSQL."""
