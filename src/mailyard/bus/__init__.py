"""Wake-ups between processes, and the stored stream of live events."""
