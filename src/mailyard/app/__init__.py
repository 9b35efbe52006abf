"""The composition root: settings become services here, and only here an adapter is picked.

A module for each layer of rooms, each standing on the one below: foundation, access, receiving,
analysis, own delivery, ways out, sending, campaigns, webhooks, operations, application. Every
service is made when it is first asked for, and its module imported then: a role pays, in time and
memory, for what it uses and nothing else.
"""

from mailyard.app.application import Application
from mailyard.app.foundation import database_address

__all__ = ["Application", "database_address"]
