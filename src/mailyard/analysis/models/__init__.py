"""The ways to have a mail read: rules, and the protocols of language models."""
