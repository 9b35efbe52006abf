"""Every setting: one typed, frozen object from the environment and an optional TOML file.

A setting `port` is `MAILYARD_PORT` in the environment and `port` in the file that MAILYARD_CONFIG
names; the environment wins. A name nobody knows or a value that cannot be stops the start with the
name, the value and what is allowed: a typing error must not run with a default.
"""

# ruff: noqa: RUF009 (the defaults are immutable and made once, with what is said about them)

import difflib
import os
import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mailyard.core import limits
from mailyard.core.errors import ConfigurationError

PREFIX = "MAILYARD_"
_NOT_SETTINGS = ("MAILYARD_CONFIG", "MAILYARD_TEST_", "MAILYARD_CORPORA")  # read elsewhere
_SIZE = re.compile(r"^(\d+)\s*(kb|mb|gb|)$")
_SIZE_UNITS = {"": 1, "kb": limits.KIB, "mb": limits.MIB, "gb": 1024 * limits.MIB}


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the text of a setting becomes its value; `parse` raises ValueError."""

    parse: Callable[[str], Any]
    allowed: str


def _setting(kind: _Kind, default: Any, about: str) -> Any:
    return field(default=default, metadata={"kind": kind, "about": about})


def _whole(low: int, high: int) -> _Kind:
    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return _Kind(parse, f"a whole number from {low} to {high}")


def _number(low: float, high: float) -> _Kind:
    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return _Kind(parse, f"a number from {low:g} to {high:g}")


def _choice(*words: str) -> _Kind:
    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return _Kind(parse, "one of " + ", ".join(words))


def _parse_flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise ValueError
    return text.lower() in ("true", "1", "yes", "on")


def _parse_size(text: str) -> int:
    match = _SIZE.match(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise ValueError
    return int(match[1]) * _SIZE_UNITS[match[2]]


def _parse_domain(text: str) -> str:
    if not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*", text):
        raise ValueError
    if len(text) > limits.SMTP_DOMAIN_BYTES:
        raise ValueError
    return text.lower()


def _url(*schemes: str) -> _Kind:
    def parse(text: str) -> str:
        if text == "":
            return ""
        parts = urlsplit(text)
        if parts.scheme not in schemes or not (parts.hostname or "host=" in parts.query):
            raise ValueError
        _ = parts.port  # raises ValueError when it is no port
        return text

    return _Kind(parse, "an address like " + " or ".join(f"{name}://host:port" for name in schemes))


def _parse_master_keys(text: str) -> str:
    from mailyard.access.vault import parse_master_keys  # which most starts need not load

    parse_master_keys(text)
    return text


def _parse_dns_servers(text: str) -> str:
    from mailyard.net.dns_servers import parse_servers

    if text:
        try:
            parse_servers(text, validates=False)
        except ConfigurationError as error:
            raise ValueError(error.message) from None
    return text


def _parse_text(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise ValueError
    return text


_PORT = _whole(1, 65535)
_COUNT = _whole(0, 64)
_FLAG = _Kind(_parse_flag, "true or false")
_BYTES = _Kind(_parse_size, "a size like 300MB or 1GB")
_DOMAIN = _Kind(_parse_domain, "a host name like mail.example.org")
_TEXT = _Kind(_parse_text, "text without control characters")
_FOLDER = _Kind(lambda text: Path(_parse_text(text)).expanduser().absolute(), "a folder")
_FILE = _Kind(
    lambda text: Path(_parse_text(text)).expanduser().absolute() if text else None, "a file"
)
_MASTER_KEY = _Kind(_parse_master_keys, "base64 of 32 bytes, or several with commas between")
_DNS_SERVERS = _Kind(_parse_dns_servers, "addresses like 127.0.0.1:53, with commas between")
_POSTGRES = _url("postgresql", "postgres")
_SMTP = _url("smtp", "smtps")
_HTTP = _url("http", "https")


def _host_name() -> str:
    try:
        return _parse_domain(socket.gethostname())
    except ValueError:
        return "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an installation may decide. Sizes in bytes, times in seconds."""

    data: Path = _setting(_FOLDER, Path("data"), "where the embedded database lives")
    host: str = _setting(_TEXT, "127.0.0.1", "address that the API and the page listen on")
    port: int = _setting(_PORT, 8025, "port of the API and the page")
    smtp_host: str = _setting(_TEXT, "127.0.0.1", "address that the SMTP server listens on")
    smtp_port: int = _setting(_PORT, 2525, "port of the SMTP server")
    hostname: str = _setting(
        _DOMAIN, "", "the name that SMTP greets with; the machine's when empty"
    )
    base_url: str = _setting(_HTTP, "", "the page's address as people reach it")
    inbox_domain: str = _setting(_DOMAIN, "inbox.localhost", "domain of generated inbox addresses")

    database_url: str = _setting(_POSTGRES, "", "PostgreSQL to use; embedded when empty")
    database_direct_url: str = _setting(_POSTGRES, "", "past the pooler; database_url when empty")
    database_pooler: bool = _setting(
        _FLAG, False, "database_url is a PgBouncer in transaction mode"
    )
    database_connections: int = _setting(_whole(2, 200), 8, "pooled connections of one process")
    database_budget: int = _setting(_whole(4, 10_000), 100, "connections that all may use together")
    database_memory: int = _setting(
        _BYTES, 64 * limits.MIB, "the embedded PostgreSQL's page cache (shared_buffers)"
    )
    database_instances: int = _setting(
        _whole(0, 1000), 0, "most processes ever; 0: as started here"
    )

    history_months: int = _setting(
        _whole(0, 1200), 0, "months that deliveries and sent mails stay; 0: for ever"
    )
    audit_months: int = _setting(
        _whole(0, 1200), 0, "months that the record of changes stays; 0: for ever"
    )

    api_processes: int = _setting(_COUNT, 1, "API and page processes")
    smtp_processes: int = _setting(_COUNT, 1, "SMTP listener processes")
    worker_processes: int = _setting(_COUNT, 2, "worker processes")
    scheduler_processes: int = _setting(_COUNT, 1, "schedulers; one leads, others stand by")
    api_memory: int = _setting(_BYTES, 600 * limits.MIB, "an API process above this is replaced")
    smtp_memory: int = _setting(_BYTES, 400 * limits.MIB, "an SMTP process above this is replaced")
    worker_memory: int = _setting(_BYTES, 600 * limits.MIB, "a worker above this is replaced")
    scheduler_memory: int = _setting(_BYTES, 300 * limits.MIB, "a scheduler above this is replaced")
    drain_s: float = _setting(
        _number(0, 600), 20.0, "how long a stopping process may finish its work"
    )

    relay_url: str = _setting(
        _SMTP, "", "where mail is handed to (smtps: TLS on connect); our own listener when empty"
    )
    relay_tls: str = _setting(
        _choice("none", "opportunistic", "required"),
        "opportunistic",
        "STARTTLS towards the relay; required: its certificate is verified, with smtps too",
    )
    relay_connections: int = _setting(_whole(1, 200), 10, "connections of one worker to the relay")
    tls_cert: Path | None = _setting(_FILE, None, "PEM certificate chain of the SMTP server")
    tls_key: Path | None = _setting(_FILE, None, "PEM key of the certificate")

    dns_servers: str = _setting(
        _DNS_SERVERS, "", "DNS resolvers by address, in order of use; the system's when empty"
    )
    master_key: str = _setting(
        _MASTER_KEY, "", "what keeps stored secrets, newest first; made in `data` when empty"
    )

    live_connections: int = _setting(
        _whole(0, 100_000), limits.LIVE_CONNECTIONS, "event streams and waits of one API process"
    )
    rate_per_s: float = _setting(
        _number(0, 1e6), 1000.0, "API requests a second a key, all processes; 0: unlimited"
    )
    rate_burst: int = _setting(_whole(1, 1_000_000), 10_000, "API requests at once a key")
    smtp_connections: int = _setting(
        _whole(1, 100_000), limits.SMTP_CONNECTIONS, "SMTP connections of one process"
    )
    smtp_connections_per_address: int = _setting(
        _whole(1, 100_000), limits.SMTP_CONNECTIONS_PER_ADDRESS, "SMTP connections from one address"
    )
    log_level: str = _setting(
        _choice("debug", "info", "warning", "error"), "info", "least level that is logged"
    )
    log_format: str = _setting(_choice("text", "json"), "text", "for people or for machines")
    url: str = _setting(_HTTP, "", "the API that commands talk to; the one here when empty")
    api_key: str = _setting(_TEXT, "", "the key that commands use")

    @property
    def page_url(self) -> str:
        """Where the page is, without a slash at the end."""
        if self.base_url:
            return self.base_url.rstrip("/")
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def api_url(self) -> str:
        """The API that a command of this installation talks to."""
        return self.url.rstrip("/") if self.url else self.page_url

    @property
    def smtp_name(self) -> str:
        """The name in the SMTP greeting and in EHLO."""
        return self.hostname or _host_name()

    @property
    def embedded(self) -> bool:
        """Whether the platform brings its own PostgreSQL."""
        return not self.database_url

    @property
    def instances(self) -> int:
        """The most processes that may hold a pool at once, all machines together."""
        here = (
            self.api_processes
            + self.smtp_processes
            + self.worker_processes
            + self.scheduler_processes
        )
        return self.database_instances or here


_FIELDS = {setting.name: setting for setting in fields(Settings)}


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises ConfigurationError naming the wrong one."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {"data": Path("data").absolute()}
    config = environment.get(PREFIX + "CONFIG", "")
    if config:
        values.update(_from_file(Path(config).expanduser()))
    for name, text in environment.items():
        if name.startswith(PREFIX) and not name.startswith(_NOT_SETTINGS):
            key = name.removeprefix(PREFIX).lower()
            if key not in _FIELDS or name != name.upper():
                raise ConfigurationError(_unknown(name, key, PREFIX, str.upper))
            values[key] = _value(name, key, text)
    settings = Settings(**values)
    _check_together(settings)
    return settings


def as_environment(settings: Settings) -> dict[str, str]:
    """The settings as variables that `load_settings` reads back: for child processes."""
    texts = {}
    for name in _FIELDS:
        value = getattr(settings, name)
        texts[PREFIX + name.upper()] = "" if value is None else str(value)
    return {name: text for name, text in texts.items() if text != ""}


def describe() -> list[tuple[str, str, str, str]]:
    """(variable, what it is, what is allowed, default) of every setting, for help and docs."""
    return [
        (
            PREFIX + name.upper(),
            setting.metadata["about"],
            setting.metadata["kind"].allowed,
            "" if setting.default is None else str(setting.default),
        )
        for name, setting in _FIELDS.items()
    ]


def _from_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(
            f"MAILYARD_CONFIG is {str(path)!r}, which cannot be read ({error.strerror}); "
            "name a TOML file, or leave the variable out"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error
    values = {}
    for key, value in table.items():
        if key not in _FIELDS:
            raise ConfigurationError(f"{path}: " + _unknown(key, key, "", str.lower))
        if not isinstance(value, (str, int, float)):
            raise ConfigurationError(_wrong(f"{path}: {key}", key, str(value)))
        values[key] = _value(f"{path}: {key}", key, str(value))
    return values


def _value(shown: str, key: str, text: str) -> Any:
    if text == "" and _FIELDS[key].default in ("", None):
        return _FIELDS[key].default
    try:
        return _FIELDS[key].metadata["kind"].parse(text)
    except (ValueError, OverflowError):
        raise ConfigurationError(_wrong(shown, key, text)) from None


def _wrong(shown: str, key: str, text: str) -> str:
    hidden = "(hidden)" if "url" in key or key in ("api_key", "master_key") else repr(text[:200])
    return f"{shown} is {hidden}; allowed is {_FIELDS[key].metadata['kind'].allowed}"


def _unknown(shown: str, key: str, prefix: str, case: Callable[[str], str]) -> str:
    near = difflib.get_close_matches(key, _FIELDS, n=1, cutoff=0.5)
    hint = f"; did you mean {prefix}{case(near[0])}?" if near else ""
    return f"{shown} is not a setting{hint} (`mailyard doctor --settings` lists them all)"


def _check_together(settings: Settings) -> None:
    if (settings.tls_cert is None) is not (settings.tls_key is None):
        raise ConfigurationError("MAILYARD_TLS_CERT and MAILYARD_TLS_KEY must be given together")
    if settings.database_direct_url and not settings.database_url:
        raise ConfigurationError("MAILYARD_DATABASE_DIRECT_URL needs MAILYARD_DATABASE_URL")
    if settings.database_pooler and not settings.database_direct_url:
        raise ConfigurationError(
            "MAILYARD_DATABASE_POOLER is true, so MAILYARD_DATABASE_DIRECT_URL must name the "
            "server itself: LISTEN, advisory locks and migrations cannot pass through a pooler"
        )
    _check_relay(settings)
    check_budget(settings)


def _check_relay(settings: Settings) -> None:
    parts = urlsplit(settings.relay_url)
    if parts.scheme == "smtps" and settings.relay_tls == "none":
        raise ConfigurationError(
            "MAILYARD_RELAY_TLS is none, but MAILYARD_RELAY_URL begins with smtps, which is TLS "
            "on connect; set MAILYARD_RELAY_TLS to opportunistic or required, or use smtp://"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            "MAILYARD_RELAY_URL has a name or a password (hidden), but Mailyard does not sign in "
            "at a relay; name one that takes mail from this machine's address"
        )


def check_budget(settings: Settings, server_limit: int | None = None) -> None:
    """Raise ConfigurationError when all pools together could pass the budget or the server's own.

    Each process holds its pool and up to DIRECT_CONNECTIONS beside it; `server_limit` is what the
    server leaves to ordinary users (max_connections less the reserved ones).
    """
    wanted = settings.instances * (settings.database_connections + DIRECT_CONNECTIONS)
    if wanted > settings.database_budget:
        raise ConfigurationError(
            f"{settings.instances} processes with {settings.database_connections} pooled and "
            f"{DIRECT_CONNECTIONS} direct database connections each may need {wanted}, more than "
            f"MAILYARD_DATABASE_BUDGET ({settings.database_budget}); lower "
            "MAILYARD_DATABASE_CONNECTIONS or the number of processes, or raise the budget"
        )
    if server_limit is not None and settings.database_budget > server_limit:
        raise ConfigurationError(
            f"MAILYARD_DATABASE_BUDGET is {settings.database_budget}, but the server gives "
            f"{server_limit} connections; lower the budget or raise max_connections"
        )


DIRECT_CONNECTIONS = 2  # of one process: LISTEN, and an advisory lock or a detach
