"""Redis or Valkey, alone, watched over by Sentinel, or as a cluster: one link a process."""
