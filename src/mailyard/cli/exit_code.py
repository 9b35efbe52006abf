"""Exit codes of every command, as `mailyard --help` documents them.

0 done, 1 refused or a verdict that is not clean, 2 wrong usage, 69 a part is away (EX_UNAVAILABLE
of sysexits.h), 78 a setting or the machine is wrong (EX_CONFIG), 130 interrupted.
"""

from mailyard.core.errors import ConfigurationError, MailyardError, Unavailable

DONE = 0
REFUSED = 1
USAGE = 2
UNAVAILABLE = 69
CONFIGURATION = 78
INTERRUPTED = 130


def of(error: MailyardError) -> int:
    """The exit code that tells of `error`."""
    if isinstance(error, ConfigurationError):
        return CONFIGURATION
    return UNAVAILABLE if isinstance(error, Unavailable) else REFUSED
