"""Regions: where workspaces are at home.

A region is an installation with a database of its own; a workspace and all that is its lies in the
database of its home region and nowhere else but in that database's copies. The regions know one
another from a file that is the same in all of them, but for the copies:

    [eu]
    api = "https://eu.mail.example.org"
    smtp = ["mx1.eu.mail.example.org", "mx2.eu.mail.example.org"]
    domains = ["eu.inbox.example.org"]                      # its MAILYARD_INBOX_DOMAIN
    standby = "postgresql://mailyard@pg-eu-copy/mailyard"   # the copy of its database kept here

`smtp`: the names that mail for its domains is sent to, the first first. `domains`: those that its
generated inboxes are under; whether one of them exists is its own to say. `standby`: empty where
none is kept; without it nobody here can say what else is at home there.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mailyard.core.errors import ConfigurationError, InvalidInput, MailyardError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_KEYS = frozenset({"api", "smtp", "domains", "standby"})
REGIONS_MOST = 50


@dataclass(frozen=True, slots=True)
class Region:
    """One region, as the file has it."""

    name: str
    api: str
    smtp: tuple[str, ...] = ()
    domains: frozenset[str] = frozenset()
    standby: str = ""


@dataclass(frozen=True, slots=True)
class Regions:
    """All regions by name, and which one this process works for; "" where there are none."""

    own: str = ""
    all: Mapping[str, Region] | None = None

    @property
    def here(self) -> Region | None:
        return (self.all or {}).get(self.own)

    @property
    def others(self) -> list[Region]:
        return [region for region in (self.all or {}).values() if region.name != self.own]

    def find(self, name: str) -> Region:
        """Raises InvalidInput that names those there are."""
        found = (self.all or {}).get(name)
        if found is None:
            known = ", ".join(sorted(self.all or {})) or "none: MAILYARD_REGIONS_FILE"
            raise InvalidInput(f"there is no region {name[:40]!r}; regions are {known}")
        return found


NO_REGIONS = Regions()


class AtHomeElsewhere(MailyardError):
    """What was asked for lies in another region: ask there (`api`)."""

    code = "at_home_elsewhere"
    status = 307

    def __init__(self, region: Region, what: str) -> None:
        super().__init__(f"{what} is at home in region {region.name}: ask {region.api}")
        self.region = region


def read_regions(file: str, text: str, own: str) -> Regions:
    """The regions of a file. Raises ConfigurationError naming the file, the region and the key."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    if len(table) > REGIONS_MOST:
        raise ConfigurationError(f"{file} has more than {REGIONS_MOST} regions")
    regions = {name: _region(file, name, value) for name, value in table.items()}
    if own not in regions:
        raise ConfigurationError(
            f"{file} has no [{own}], which MAILYARD_REGION names; it has {', '.join(regions)}"
        )
    return Regions(own, regions)


def _region(file: str, name: str, value: Any) -> Region:
    if not _NAME.fullmatch(name) or not isinstance(value, dict):
        raise ConfigurationError(
            f"{file}: {name[:40]!r} must be a table named by small letters, digits and -, as [eu]"
        )
    unknown = value.keys() - _KEYS
    if unknown:
        raise ConfigurationError(
            f"{file}: {name}.{min(unknown)} is unknown; keys are {', '.join(sorted(_KEYS))}"
        )
    api, standby = value.get("api"), value.get("standby", "")
    if not isinstance(api, str) or urlsplit(api).scheme not in ("http", "https"):
        raise ConfigurationError(f"{file}: {name}.api must be an address like https://eu.example")
    smtp, domains = (_hosts(file, name, key, value.get(key, [])) for key in ("smtp", "domains"))
    if not isinstance(standby, str) or (standby and not standby.startswith("postgres")):
        raise ConfigurationError(f"{file}: {name}.standby must be a postgresql:// address")
    return Region(name, api.rstrip("/"), smtp, frozenset(domains), standby)


def _hosts(file: str, name: str, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(host, str) and _HOST.fullmatch(host) for host in value
    ):
        raise ConfigurationError(f"{file}: {name}.{key} must be a list of names in small letters")
    return tuple(value)
