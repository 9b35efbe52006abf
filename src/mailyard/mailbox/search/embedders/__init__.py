"""Models that make vectors of texts."""
