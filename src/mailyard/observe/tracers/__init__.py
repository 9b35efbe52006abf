"""Who traces are told to."""
