"""Where Redis is, out of one address.

    redis://[user:password@]host[:port][/database]        one server; rediss:// with TLS
    redis+sentinel://[…@]host,host[:port]/name[/database] whoever the Sentinels call the primary
    redis+cluster://[…@]host,host[:port]                  a cluster, found through any of its nodes

and behind a `?`: `prefix` (of every key; `my`), `ca` (a file with the authority of the servers'
certificates), `sentinel_user` and `sentinel_password` (where the Sentinels ask for some).
"""

import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import parse_qsl, unquote, urlsplit

SERVER_PORT = 6379
SENTINEL_PORT = 26379
PREFIX = "my"
_OPTIONS = ("prefix", "ca", "sentinel_user", "sentinel_password")


class Form(Enum):
    """How the servers stand together."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_ADDRESS = re.compile(
    r"(?P<scheme>[a-z+]+)://(?:(?P<credentials>[^@/?#]*)@)?(?P<places>[^@/?#]+)"
    r"(?P<path>/[^?#]*)?(?:\?(?P<query>[^#]*))?"
)
_SCHEMES = {
    "redis": (Form.SINGLE, False),
    "rediss": (Form.SINGLE, True),
    "redis+sentinel": (Form.SENTINEL, False),
    "rediss+sentinel": (Form.SENTINEL, True),
    "redis+cluster": (Form.CLUSTER, False),
    "rediss+cluster": (Form.CLUSTER, True),
}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """`hosts`: the server, the Sentinels, or some nodes of the cluster. `name`: the Sentinels' word
    for the primary."""

    form: Form
    hosts: tuple[tuple[str, int], ...]
    tls: bool = False
    name: str = ""
    database: int = 0
    user: str = ""
    password: str = ""
    prefix: str = PREFIX
    ca: str = ""
    sentinel_user: str = ""
    sentinel_password: str = ""

    def shown(self) -> str:
        """For people: no password."""
        hosts = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.form.value} {hosts}" + (f" ({self.name})" if self.name else "")


def parse_address(text: str) -> RedisAddress:
    """The address behind `text`. Raises ValueError."""
    match = _ADDRESS.fullmatch(text)
    if match is None or match["scheme"] not in _SCHEMES:
        raise ValueError(f"schemes are {', '.join(_SCHEMES)}")
    form, tls = _SCHEMES[match["scheme"]]
    user, _, password = (match["credentials"] or "").partition(":")
    query = match["query"]
    options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True)) if query else {}
    if not set(options) <= set(_OPTIONS):
        raise ValueError(f"options are {', '.join(_OPTIONS)}")
    prefix = options.get("prefix", PREFIX)
    if not prefix or any(character in "{}: " for character in prefix):
        raise ValueError("a prefix has no braces, colons or spaces")
    hosts = _hosts(match["places"], SENTINEL_PORT if form is Form.SENTINEL else SERVER_PORT)
    if form is Form.SINGLE and len(hosts) > 1:
        raise ValueError("one server has one host")
    name, database = _path(match["path"] or "", form)
    return RedisAddress(
        form=form,
        hosts=hosts,
        tls=tls,
        name=name,
        database=database,
        user=unquote(user),
        password=unquote(password),
        prefix=prefix,
        ca=options.get("ca", ""),
        sentinel_user=options.get("sentinel_user", ""),
        sentinel_password=options.get("sentinel_password", ""),
    )


def _hosts(text: str, usual: int) -> tuple[tuple[str, int], ...]:
    hosts = []
    for place in text.split(","):
        parts = urlsplit(f"//{place}")
        if not parts.hostname or parts.port == 0:
            raise ValueError("a host is missing")
        hosts.append((parts.hostname, parts.port or usual))
    return tuple(hosts)


def _path(path: str, form: Form) -> tuple[str, int]:
    """The Sentinels' name and the database."""
    words = [unquote(word) for word in path.split("/") if word]
    name = ""
    if form is Form.SENTINEL:
        if not words:
            raise ValueError("behind the Sentinels stands the name of the primary")
        name = words.pop(0)
    if len(words) > (0 if form is Form.CLUSTER else 1):
        raise ValueError("too long a path")
    return name, int(words[0]) if words else 0
