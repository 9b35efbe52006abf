"""An address of several hosts (`postgresql://user@one:5432,two:5432/name?…`), as libpq has it.

The server that takes writes may be any of them. Each is asked by itself, so that one which swallows
connections without a word does not use up the time of the others.
"""

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

_ADDRESS = re.compile(r"([a-z]+://)([^/?#]*@)?([^/?#]*)([^?#]*)\??(.*)", re.DOTALL)
_ATTRIBUTE = "target_session_attrs"


def hosts_of(url: str) -> list[str]:
    """The same address once for each of its hosts, without `target_session_attrs`.

    A text that is no address is given back as it is.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None:
        return [url]
    scheme, user, places, path, query = match.groups()
    options = [pair for pair in parse_qsl(query, True) if pair[0] != _ATTRIBUTE]
    end = path + ("?" + urlencode(options, safe="/,:") if options else "")
    return [f"{scheme}{user or ''}{place}{end}" for place in places.split(",")]


def place_of(url: str) -> str:
    """Host and port, or the socket's folder, for people: no user, no password."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or dict(parse_qsl(parts.query)).get("host", "")


def unanswered(url: str, error: BaseException) -> str:
    """What is said to whoever starts something without its PostgreSQL: which, and what to do."""
    place = place_of(url)
    if place.startswith("/"):
        what = "`mailyard up` starts the one of MAILYARD_DATA; is it running, on this folder?"
    else:
        what = "is it running, and is it what MAILYARD_DATABASE_URL should name?"
    return f"PostgreSQL does not answer at {place}: {error}; {what}"


def for_writes(url: str) -> str:
    """The address as other programs and drivers want it: of several hosts the one that writes."""
    hosts = hosts_of(url)
    if len(hosts) == 1 or _ATTRIBUTE in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{_ATTRIBUTE}=read-write"
