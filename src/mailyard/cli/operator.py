"""Who works at the database itself: the operator, by the names of the user and of the machine.

The commands that ask the API act under its key; those that need the database (a lost key, a move,
history) act for whoever may run them on the machine, and the audit log says who that was.
"""

import getpass
import os
import socket
from uuid import UUID

from mailyard.access.audit import Actor


def operator(workspace_id: UUID) -> Actor:
    """The one who has called this command, acting in a workspace."""
    return Actor("command", f"{user()}@{socket.gethostname()}", workspace_id)


def user() -> str:
    """The user's name; the number of one whom the machine has no name for, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # until Python 3.12 it is the one, since then the other
        return f"uid-{os.geteuid()}"
