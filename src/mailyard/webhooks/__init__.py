"""Events told to applications: endpoints, their line, and what each was told."""
