"""Mailyard for AI agents: a server of the Model Context Protocol, over stdio or HTTP.

It has no power of its own: it is a client of the API with the caller's key, and what the key may
not do the agent cannot. What stands in mail was written by strangers and reaches the agent only
inside a fence that says so (`fence.py`).
"""
