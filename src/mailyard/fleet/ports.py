"""Whether a port is free, asked before our processes share it.

They listen with SO_REUSEPORT, and so would a second installation of the same user: both would take
half of the connections each. So the supervisor asks first, without that option.
"""

import errno
import socket

from mailyard.core.errors import ConfigurationError


def check_free(host: str, port: int, setting: str) -> None:
    """Raise ConfigurationError naming `setting` when `host`:`port` cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except (OSError, OverflowError) as error:
            number = getattr(error, "errno", None)
            reason = {
                errno.EADDRINUSE: "another program, or another Mailyard, listens there",
                errno.EACCES: "a port below 1024 needs a privilege that this user does not have",
                errno.EADDRNOTAVAIL: "this machine has no such address",
            }.get(number or 0, str(error))
            raise ConfigurationError(
                f"cannot listen on {host}:{port}: {reason}; set {setting} to a free port"
            ) from error


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
