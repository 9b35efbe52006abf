"""How the request at hand may read: from a replica, or from the primary alone.

Without a scope everything is read from the primary. Whoever serves a request that only reads opens
one (`reading`), naming the caller whose own writes it must see. A value that others will be given
too, as a cache's, has to be as new as the primary: its maker reads inside `at_head`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

from mailyard.storage.queries import name_of

_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})", re.ASCII)


@dataclass(slots=True)
class Reading:
    """One request's scope.

    `caller`: whose writes it must see; `position`: up to where at least, as the caller says it.
    `head`: everything that was committed before the question. `used`: a replica has answered.
    `wrote`: the request has changed something that others may read from a replica.
    """

    caller: bytes | None = None
    position: int | None = None
    head: bool = False
    used: bool = False
    wrote: bool = False
    outer: "Reading | None" = None

    def mark(self, *, used: bool = False, wrote: bool = False) -> None:
        """Remember what this request has done."""
        self.used = self.used or used
        self.wrote = self.wrote or wrote
        if self.outer is not None:
            self.outer.mark(used=used, wrote=wrote)


_NOW: ContextVar[Reading | None] = ContextVar("mailyard_reading", default=None)


def present() -> Reading | None:
    """The scope of the request at hand, or None: the primary alone."""
    return _NOW.get()


@contextmanager
def reading(scope: Reading) -> Iterator[Reading]:
    """What is read inside may come from a replica."""
    token = _NOW.set(scope)
    try:
        yield scope
    finally:
        _NOW.reset(token)


@contextmanager
def at_head() -> Iterator[None]:
    """Inside, a replica answers only once it has all that the primary had when it was asked."""
    outer = _NOW.get()
    if outer is None or outer.head:
        yield
        return
    with reading(Reading(head=True, outer=outer)):
        yield


def parse_position(text: str) -> int | None:
    """A place in the write-ahead log as PostgreSQL writes it (`16/B374D848`), or None."""
    match = _LSN.fullmatch(text.strip())
    return None if match is None else int(match[1], 16) << 32 | int(match[2], 16)


def format_position(position: int) -> str:
    """The same, back."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


# Who may come in, what is locked, limited, queued, cached and announced: these decide something, or
# stand in tables that no replica has.
PRIMARY_ONLY = frozenset(
    {
        "access",
        "account",
        "backup",
        "bus",
        "cache",
        "idempotency",
        "kafka",
        "lease",
        "live",
        "migrate",
        "partitions",
        "process",
        "queue",
        "ratelimit",
        "replica",
        "unnamed",
    }
)
_COMMENT = re.compile(r"--[^\n]*")
_WRITES = re.compile(
    r"\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE|LOCK|CALL|FOR\s+(NO\s+KEY\s+UPDATE|KEY\s+SHARE|SHARE)"
    r"|nextval|setval|set_config|pg_notify|pg_\w*advisory\w*)\b",
    re.IGNORECASE,
)
_READS = re.compile(r"\s*\(?\s*(SELECT|WITH|VALUES)\b", re.IGNORECASE)
_OF_THE_PRIMARY = re.compile(r"\b(pg_current_\w+|txid_\w+)\b", re.IGNORECASE)


@lru_cache(maxsize=4096)
def only_reads(query: str) -> bool:
    """Whether a query changes nothing and locks nothing, as far as its text says.

    It may call a function that does: nothing but a replica, or a transaction that is read only,
    can tell.
    """
    text = _COMMENT.sub("", query)
    return _READS.match(text) is not None and _WRITES.search(text) is None


@lru_cache(maxsize=4096)
def may_lag(query: str) -> bool:
    """Whether a replica may answer the query."""
    return only_reads(query) and not _is_primarys(query) and not _OF_THE_PRIMARY.search(query)


@lru_cache(maxsize=4096)
def is_seen_later(query: str) -> bool:
    """Whether the query changes something that is read from replicas."""
    return not only_reads(query) and not _is_primarys(query)


def _is_primarys(query: str) -> bool:
    return name_of(query).partition(".")[0] in PRIMARY_ONLY
