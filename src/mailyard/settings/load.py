"""Settings out of the environment and an optional TOML file, and whether they fit together."""

import difflib
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mailyard.core import limits
from mailyard.core.errors import ConfigurationError
from mailyard.settings.setting import DIRECT_CONNECTIONS, Settings

PREFIX = "MAILYARD_"
_NOT_SETTINGS = ("MAILYARD_CONFIG", "MAILYARD_TEST_", "MAILYARD_CORPORA")  # read elsewhere
# In names of settings that may hold a secret.
_HIDDEN = (
    "url",
    "key",
    "replicas",
    "shards",
    "passphrase",
    "password",
    "blobs",
    "token",
    "alerts_",
    "headers",
    "dsn",
)
_FIELDS = {setting.name: setting for setting in fields(Settings)}


def load_settings(
    environment: Mapping[str, str] | None = None, *, beneath: Mapping[str, str] | None = None
) -> Settings:
    """The settings of this process; `beneath` are texts, by the names of settings, that stand where
    the operator has set nothing. Raises ConfigurationError naming the wrong one."""
    values: dict[str, Any] = {"data": Path("data").absolute()}
    for name, text in (beneath or {}).items():
        if name not in _FIELDS:
            raise ConfigurationError("the stage: " + _unknown(name, name, "", str.lower))
        values[name] = _value(f"the stage: {name}", name, text)
    settings = Settings(**{**values, **given_settings(environment)})
    _check_together(settings)
    return settings


def given_settings(environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the operator has set, by the names of settings. Raises ConfigurationError."""
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    config = environment.get(PREFIX + "CONFIG", "")
    if config:
        values.update(_from_file(Path(config).expanduser()))
    for name, text in environment.items():
        if name.startswith(PREFIX) and not name.startswith(_NOT_SETTINGS):
            key = name.removeprefix(PREFIX).lower()
            if key not in _FIELDS or name != name.upper():
                raise ConfigurationError(_unknown(name, key, PREFIX, str.upper))
            values[key] = _value(name, key, text)
    return values


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
    secret = key == "backup" or any(word in key for word in _HIDDEN)
    hidden = "(hidden)" if secret else repr(text[:200])
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
    if settings.database_replicas and not settings.database_url:
        raise ConfigurationError(
            "MAILYARD_DATABASE_REPLICAS needs MAILYARD_DATABASE_URL: the embedded PostgreSQL has "
            "no replicas"
        )
    if settings.database_pooler and not settings.database_direct_url:
        raise ConfigurationError(
            "MAILYARD_DATABASE_POOLER is true, so MAILYARD_DATABASE_DIRECT_URL must name the "
            "server itself: LISTEN, advisory locks and migrations cannot pass through a pooler"
        )
    if settings.regions_file is not None and not settings.region:
        raise ConfigurationError(
            "MAILYARD_REGIONS_FILE needs MAILYARD_REGION: which of its regions this process is of"
        )
    _check_relay(settings)
    if settings.queue_engine == "kafka":
        _check_kafka(settings)
    _check_blobs(settings)
    _check_shards(settings)
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


def _check_kafka(settings: Settings) -> None:
    from mailyard.queue.engine import KAFKA_CAPABILITIES
    from mailyard.queue.lanes import check_lanes, parse_lanes

    if not settings.kafka_servers:
        raise ConfigurationError(
            "MAILYARD_QUEUE_ENGINE is kafka, so MAILYARD_KAFKA_SERVERS must name its brokers, "
            "like kafka1:9092,kafka2:9092"
        )
    if (settings.kafka_sasl == "none") is not (not settings.kafka_user):
        raise ConfigurationError("MAILYARD_KAFKA_SASL and MAILYARD_KAFKA_USER go together")
    lanes = parse_lanes(settings.kafka_lanes)
    check_lanes(lanes, KAFKA_CAPABILITIES, "Kafka", "MAILYARD_KAFKA_LANES")


def _check_shards(settings: Settings) -> None:
    names = settings.shard_urls
    if settings.shard and settings.shard not in names:
        raise ConfigurationError(
            f"MAILYARD_SHARD is {settings.shard!r}, but MAILYARD_SHARDS names "
            f"{', '.join(names) or 'none'}"
        )
    if names and settings.queue_engine == "kafka":
        raise ConfigurationError(
            "MAILYARD_SHARDS and MAILYARD_QUEUE_ENGINE=kafka do not go together: a workspace that "
            "moves takes its jobs along, and cannot take them out of a topic"
        )


def _check_blobs(settings: Settings) -> None:
    if settings.blobs_before and not settings.blobs:
        raise ConfigurationError(
            "MAILYARD_BLOBS_BEFORE names the store that blobs move away from; MAILYARD_BLOBS must "
            "name where they move to"
        )
    if settings.blobs_before and settings.blobs_before == settings.blobs:
        raise ConfigurationError("MAILYARD_BLOBS_BEFORE and MAILYARD_BLOBS are the same store")
    if settings.blobs_above < limits.BLOB_ABOVE_BYTES_MIN:
        raise ConfigurationError(
            f"MAILYARD_BLOBS_ABOVE is {settings.blobs_above}; below {limits.BLOB_ABOVE_BYTES_MIN} "
            "bytes a request to the store costs more than the row"
        )


def check_budget(settings: Settings, server_limit: int | None = None) -> None:
    """Raise ConfigurationError when all pools together could pass the budget or the server's own.

    Each process holds its pool and up to DIRECT_CONNECTIONS beside it; `server_limit` is what the
    server leaves to ordinary users (max_connections less the reserved ones).
    """
    wanted = settings.instances * settings.connections_each
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


def describe_budget(settings: Settings) -> str:
    """What the pools may need together, of what, and for how many processes there is room."""
    return (
        f"{settings.instances} processes with {settings.connections_each} each may need "
        f"{settings.instances * settings.connections_each} of the budget of "
        f"{settings.database_budget}, which has room for {settings.most_instances} processes"
    )
