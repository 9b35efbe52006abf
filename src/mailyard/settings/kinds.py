"""Kinds of settings: how the text of one becomes its value, and what is allowed."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mailyard.core import limits
from mailyard.core.errors import ConfigurationError, InvalidInput

HOME = "home"  # the cluster of MAILYARD_DATABASE_URL
_SHARD_NAME = re.compile("[a-z][a-z0-9-]{0,30}")
_SIZE = re.compile(r"^(\d+)\s*(kb|mb|gb|)$")
_SIZE_UNITS = {"": 1, "kb": limits.KIB, "mb": limits.MIB, "gb": 1024 * limits.MIB}


@dataclass(frozen=True, slots=True)
class Kind:
    """How the text of a setting becomes its value; `parse` raises ValueError."""

    parse: Callable[[str], Any]
    allowed: str


def setting(kind: Kind, default: Any, about: str) -> Any:
    """A field of `Settings`."""
    return field(default=default, metadata={"kind": kind, "about": about})


def whole(low: int, high: int) -> Kind:
    """A whole number within bounds."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return Kind(parse, f"a whole number from {low} to {high}")


def number(low: float, high: float) -> Kind:
    """A number within bounds."""

    def parse(text: str) -> float:
        value = float(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return Kind(parse, f"a number from {low:g} to {high:g}")


def choice(*words: str) -> Kind:
    """One of some words, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError
        return text.lower()

    return Kind(parse, "one of " + ", ".join(words))


def _parse_flag(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise ValueError
    return text.lower() in ("true", "1", "yes", "on")


def _parse_size(text: str) -> int:
    match = _SIZE.match(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise ValueError
    return int(match[1]) * _SIZE_UNITS[match[2]]


def parse_domain(text: str) -> str:
    """A host name in lower case. Raises ValueError."""
    if not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*", text):
        raise ValueError
    if len(text) > limits.SMTP_DOMAIN_BYTES:
        raise ValueError
    return text.lower()


def url(*schemes: str) -> Kind:
    def parse(text: str) -> str:
        if text == "":
            return ""
        parts = urlsplit(text)
        if parts.scheme not in schemes or not (parts.hostname or "host=" in parts.query):
            raise ValueError
        _ = parts.port  # raises ValueError when it is no port
        return text

    return Kind(parse, "an address like " + " or ".join(f"{name}://host:port" for name in schemes))


def _parse_blobs(text: str) -> str:
    if text == "":
        return ""
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/") or parts.path.strip("/") == "":
            raise ValueError
    elif parts.scheme not in ("s3", "gs", "az") or not parts.hostname:
        raise ValueError
    return text


def _parse_postgres(text: str) -> str:
    """Each host by itself: libpq's addresses may name several."""
    from mailyard.storage.hosts import hosts_of

    if text:
        kind = url("postgresql", "postgres")
        for host in hosts_of(text):
            kind.parse(host)
    return text


def _parse_master_keys(text: str) -> str:
    from mailyard.access.master_key import parse_master_keys  # which most starts need not load

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


def _parse_mail_address(text: str) -> str:
    from mailyard.core.errors import InvalidInput
    from mailyard.protocol.address import normalise

    if not text:
        return text
    try:
        return normalise(text)
    except InvalidInput as error:
        raise ValueError(error.message) from None


def _parse_recipients(text: str) -> str:
    for word in text.replace(",", " ").split():
        _parse_mail_address(word)
    return text


def _parse_networks(text: str) -> str:
    from mailyard.net.guard import networks_in

    try:
        networks_in(text)
    except ConfigurationError as error:
        raise ValueError(error.message) from None
    return text


def _parse_spf(text: str) -> str:
    from mailyard.protocol.dns_spf_record import parse_spf

    if text:
        try:
            parse_spf(f"v=spf1 {' '.join(text.split())}")
        except InvalidInput as error:
            raise ValueError(error.message) from None
    return text


def _parse_addresses(text: str) -> str:
    for word in text.replace(",", " ").split():
        ip_address(word)
    return text


def _parse_servers(text: str) -> str:
    for word in filter(None, text.split(",")):
        host, _, port = word.strip().rpartition(":")
        if not host or not 0 < int(port) < 65536:
            raise ValueError
    return text


def _parse_region(text: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", text):
        raise ValueError("not a region's name")
    return text


def _parse_prefix(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,100}", text):
        raise ValueError
    return text


def _parse_lanes(text: str) -> str:
    from mailyard.queue.lanes import parse_lanes

    parse_lanes(text)
    return text


def _parse_partitions(text: str) -> str:
    from mailyard.queue.lanes import parse_partitions

    parse_partitions(text)
    return text


def _parse_text(text: str) -> str:
    if any(ord(character) < 32 for character in text):
        raise ValueError
    return text


def parse_shards(text: str) -> dict[str, tuple[str, str]]:
    """`name=url` with spaces between, or `name=pooled|direct`: by name, the address of each cluster
    and the one past its pooler (empty: there is none). Raises ValueError."""
    found: dict[str, tuple[str, str]] = {}
    for word in text.split():
        name, _, addresses = word.partition("=")
        url, _, direct = addresses.partition("|")
        if not _SHARD_NAME.fullmatch(name) or name == HOME or name in found or not url:
            raise ValueError
        found[name] = (_parse_postgres(url), _parse_postgres(direct))
    return found


def _parse_shards(text: str) -> str:
    parse_shards(text)
    return text


def _parse_redis(text: str) -> str:
    from mailyard.storage.redis.address import parse_address

    if text:
        parse_address(text)
    return text


PORT = whole(1, 65535)
PORT_OR_NONE = whole(0, 65535)
COUNT = whole(0, 64)
FLAG = Kind(_parse_flag, "true or false")
BYTES = Kind(_parse_size, "a size like 300MB or 1GB")
BLOBS = Kind(
    _parse_blobs, "an address like file:///srv/blobs, s3://bucket/prefix, gs://bucket, az://box"
)
DOMAIN = Kind(parse_domain, "a host name like mail.example.org")
TEXT = Kind(_parse_text, "text without control characters")
FOLDER = Kind(lambda text: Path(_parse_text(text)).expanduser().absolute(), "a folder")
FILE = Kind(
    lambda text: Path(_parse_text(text)).expanduser().absolute() if text else None, "a file"
)
MASTER_KEY = Kind(_parse_master_keys, "base64 of 32 bytes, or several with commas between")
DNS_SERVERS = Kind(_parse_dns_servers, "addresses like 127.0.0.1:53, with commas between")
NETWORKS = Kind(_parse_networks, "networks like 10.1.0.0/16, with commas between")
SPF = Kind(_parse_spf, "SPF terms like include:spf.relay.example or ip4:192.0.2.1")
ADDRESS = Kind(_parse_mail_address, "a mail address")
RECIPIENTS = Kind(_parse_recipients, "mail addresses, with commas between")
ADDRESSES = Kind(_parse_addresses, "IP addresses, with commas between")
SERVERS = Kind(_parse_servers, "host:port, with commas between")
LANE_NAMES = Kind(_parse_lanes, "names of queues, with commas between")
PARTITIONS = Kind(_parse_partitions, "queue=number, with commas between")
REGION = Kind(_parse_region, "small letters, digits and dashes, as eu-west")
TOPIC_PREFIX = Kind(_parse_prefix, "letters, digits, dots, dashes and underscores")
POSTGRES = Kind(
    _parse_postgres, "an address like postgresql://host:port/name, of several hosts with commas"
)
POSTGRES_LIST = Kind(
    lambda text: " ".join(_parse_postgres(one) for one in text.split()),
    "addresses like postgresql://host:port/name, with spaces between",
)
SHARDS = Kind(
    _parse_shards,
    "name=postgresql://host:port/name of each cluster beside the home one, with spaces between; "
    "name=pooled|direct where a PgBouncer stands before it",
)
REDIS = Kind(
    _parse_redis,
    "an address like redis://host:port/0, redis+sentinel://host:port,host:port/name or "
    "redis+cluster://host:port,host:port (rediss… with TLS)",
)
SMTP = url("smtp", "smtps")
HTTP = url("http", "https")
