"""Moving a workspace from one database cluster to another while it is live (docs/SHARDS.md)."""
