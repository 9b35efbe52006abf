"""Own delivery to MX, see `transport`."""
