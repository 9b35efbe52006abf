"""Every setting: one typed, frozen object from the environment and an optional TOML file.

A setting `port` is `MAILYARD_PORT` in the environment and `port` in the file that MAILYARD_CONFIG
names; the environment wins. A name nobody knows or a value that cannot be stops the start with the
name, the value and what is allowed: a typing error must not run with a default. On SIGHUP they are
read again (`reload`).
"""

from mailyard.settings.kinds import HOME
from mailyard.settings.load import (
    as_environment,
    check_budget,
    describe,
    describe_budget,
    given_settings,
    load_settings,
)
from mailyard.settings.reload import SAFE, Reload, reload, reloaded
from mailyard.settings.setting import SUBMISSION_PORT, SUBMISSIONS_PORT, Settings

__all__ = [
    "HOME",
    "SAFE",
    "SUBMISSIONS_PORT",
    "SUBMISSION_PORT",
    "Reload",
    "Settings",
    "as_environment",
    "check_budget",
    "describe",
    "describe_budget",
    "given_settings",
    "load_settings",
    "reload",
    "reloaded",
]
