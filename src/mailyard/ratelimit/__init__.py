"""How fast may somebody go: one port, buckets in this process or shared by all."""
