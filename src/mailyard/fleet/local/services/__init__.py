"""The services of stages, one a module."""
