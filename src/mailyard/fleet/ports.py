"""Whether a port is free, asked before our processes share it.

They listen with SO_REUSEPORT, and so would a second installation of the same user: both would take
half of the connections each. So the supervisor asks first, without that option.
"""

import errno
import socket

from mailyard.core.errors import ConfigurationError


def check_free(host: str, port: int, setting: str) -> None:
    """Raise ConfigurationError when `host`:`port` cannot be listened on, naming what is
    wrong of the two: `setting` has the port.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError, UnicodeError) as error:
            reason = why_not(error, setting)
            raise ConfigurationError(f"cannot listen on {host}:{port}: {reason}") from error


def why_not(error: Exception, setting: str) -> str:
    """Why there is no listening, and what to set; `setting` has the port."""
    host = "MAILYARD_HOST" if setting == "MAILYARD_PORT" else "MAILYARD_SMTP_HOST"
    own = f"set {host} to an address of this machine, like 127.0.0.1 or 0.0.0.0"
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"there is no such host ({error}); {own}"
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRNOTAVAIL:
        return f"this machine has no such address; {own}"
    reason = {
        errno.EADDRINUSE: "another program, or another Mailyard, listens there",
        errno.EACCES: "a port below 1024 needs a privilege that this user does not have",
    }.get(number or 0, str(error))
    return f"{reason}; set {setting} to a free port"


def settled(wanted: int | None, usual: int, host: str, setting: str) -> int:
    """Where to listen when `wanted` (None: `usual` if it is free) was set; 0: nowhere.

    Raises ConfigurationError when a port that somebody asked for is taken.
    """
    if wanted == 0:
        return 0
    try:
        check_free(host, usual if wanted is None else wanted, setting)
    except ConfigurationError:
        if wanted is not None:
            raise
        return 0
    return usual if wanted is None else wanted
