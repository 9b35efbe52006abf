"""An inbox as a value: what it is, and what one that is asked for has to be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from secrets import choice
from uuid import UUID

import asyncpg

from mailyard.core import limits
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.core.ids import time_of, uuid7
from mailyard.protocol.address import normalise
from mailyard.receiving.retention import class_for, class_of, is_longer

# RFC 2142: who runs the mail of a domain. Under the domains that all share nobody gets these.
RESERVED = frozenset(
    (
        "abuse",
        "hostmaster",
        "mailer-daemon",
        "noc",
        "postmaster",
        "root",
        "security",
        "webmaster",
        "www",
    )
)

_GENERATED_ALPHABET = "abcdefghjkmnpqrstvwxyz23456789"
_GENERATED_CHARACTERS = 12  # 58 bits: no collision among a billion, and nobody guesses one


@dataclass(frozen=True, slots=True)
class NewInbox:
    """What a caller asks for. `address`: whole, or only the part before @, or None for a generated
    one. `ttl_s`: seconds to live, None for ever. `message_ttl_s`: how long its mail lives, None as
    long as the inbox. `one_time`: its first mail closes it. `messages_max`, `bytes_max`: what it
    holds at most.
    """

    address: str | None = None
    ttl_s: float | None = None
    name: str = ""
    labels: tuple[str, ...] = ()
    message_ttl_s: float | None = None
    one_time: bool = False
    messages_max: int | None = None
    bytes_max: int | None = None


@dataclass(frozen=True, slots=True)
class Inbox:
    """A living inbox. `retention_days` is its class, 0 for ever."""

    id: UUID
    address: str
    name: str
    labels: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    retention_days: int
    message_ttl_s: float | None = None
    one_time: bool = False
    messages_max: int | None = None
    bytes_max: int | None = None

    @property
    def mail_days(self) -> int | None:
        """The class of its messages, where that is shorter than its own."""
        return mail_days_of(self.message_ttl_s, self.retention_days)

    def oldest_at(self, now: datetime) -> datetime:
        """No mail in it that came before is shown at `now`."""
        if self.message_ttl_s is None:
            return self.created_at
        return max(self.created_at, now - timedelta(seconds=self.message_ttl_s))


@dataclass(frozen=True, slots=True)
class InboxPage:
    """Newest first. `next_before` goes into the next call's `before`; None at the end."""

    items: list[Inbox]
    next_before: UUID | None


def planned(wanted: NewInbox, place: int, domains: Sequence[str], now: datetime) -> Inbox:
    """The inbox that `wanted`, the one at `place` of those asked for, becomes. An address without a
    domain gets the first of `domains`. Raises InvalidInput naming the field."""
    path = f"inboxes.{place}"
    check_name(wanted.name, f"{path}.name")
    check_labels(wanted.labels, f"{path}.labels")
    inbox_id = uuid7(int(now.timestamp() * 1000))
    created_at = time_of(inbox_id)
    expires_at = None
    if wanted.ttl_s is not None:
        expires_at = created_at + lifetime(wanted.ttl_s, f"{path}.ttl_s")
    if wanted.message_ttl_s is not None:
        lifetime(wanted.message_ttl_s, f"{path}.message_ttl_s")
    check_most(wanted.messages_max, wanted.bytes_max, f"{path}.")
    return Inbox(
        id=inbox_id,
        address=_address(wanted.address, f"{path}.address", domains),
        name=wanted.name,
        labels=tuple(dict.fromkeys(wanted.labels)),
        created_at=created_at,
        expires_at=expires_at,
        retention_days=class_for(created_at, expires_at),
        message_ttl_s=wanted.message_ttl_s,
        one_time=wanted.one_time,
        messages_max=wanted.messages_max,
        bytes_max=wanted.bytes_max,
    )


def _address(wanted: str | None, path: str, domains: Sequence[str]) -> str:
    if wanted is None:
        return f"{generated_name()}@{domains[0]}"
    try:
        whole = normalise(wanted if "@" in wanted else f"{wanted}@{domains[0]}")
    except InvalidInput as error:
        raise InvalidInput(error.message, field=path) from None
    local, _, domain = whole.rpartition("@")
    if domain in domains and local in RESERVED:
        raise InvalidInput(
            f"{local} is who runs the mail of a domain (RFC 2142): nobody's inbox here",
            field=path,
        )
    return whole


def generated_name() -> str:
    """A part before @ that nobody has and nobody guesses."""
    return "".join(choice(_GENERATED_ALPHABET) for _ in range(_GENERATED_CHARACTERS))


def lifetime(ttl_s: float, path: str) -> timedelta:
    if not 1.0 <= ttl_s <= limits.INBOX_TTL_S:  # NaN included
        longest = int(limits.INBOX_TTL_S)
        raise InvalidInput(f"a life of 1 to {longest} seconds, or none for ever", field=path)
    return timedelta(seconds=ttl_s)


def mail_days_of(message_ttl_s: float | None, retention_days: int) -> int | None:
    """The class of messages that live so long, in an inbox of class `retention_days`; None: its."""
    if message_ttl_s is None:
        return None
    shorter = class_of(timedelta(seconds=message_ttl_s))
    return shorter if is_longer(retention_days, shorter) else None


def check_most(messages_max: int | None, bytes_max: int | None, path: str) -> None:
    if messages_max is not None and not 1 <= messages_max <= limits.INBOX_MESSAGES_MAX:
        raise InvalidInput(f"1 to {limits.INBOX_MESSAGES_MAX}", field=f"{path}messages_max")
    if bytes_max is not None and not 1 <= bytes_max <= limits.INBOX_BYTES_MAX:
        raise InvalidInput(f"1 to {limits.INBOX_BYTES_MAX}", field=f"{path}bytes_max")


def check_name(name: str, path: str) -> None:
    if len(name) > limits.INBOX_NAME_CHARACTERS:
        raise InvalidInput(f"at most {limits.INBOX_NAME_CHARACTERS} characters", field=path)
    _check_text(name, path)


def check_labels(labels: Sequence[str], path: str) -> None:
    if len(labels) > limits.INBOX_LABELS:
        raise InvalidInput(f"at most {limits.INBOX_LABELS} labels", field=path)
    for place, label in enumerate(labels):
        if not 1 <= len(label) <= limits.INBOX_LABEL_CHARACTERS:
            raise InvalidInput(
                f"a label has 1 to {limits.INBOX_LABEL_CHARACTERS} characters",
                field=f"{path}.{place}",
            )
        _check_text(label, f"{path}.{place}")


def _check_text(text: str, path: str) -> None:
    if not text.isprintable():
        raise InvalidInput("no control characters", field=path)


def refuse_repeats(inboxes: Sequence[Inbox]) -> None:
    seen: set[str] = set()
    for place, inbox in enumerate(inboxes):
        if inbox.address in seen:
            raise Conflict(f"{inbox.address} is asked for twice", field=f"inboxes.{place}.address")
        seen.add(inbox.address)


def inbox_of(row: asyncpg.Record) -> Inbox:
    return Inbox(
        id=row["id"],
        address=row["address"],
        name=row["name"],
        labels=tuple(row["labels"]),
        created_at=time_of(row["id"]),
        expires_at=row["expires_at"],
        retention_days=row["retention_days"],
        message_ttl_s=row["message_ttl_s"],
        one_time=row["one_time"],
        messages_max=row["messages_max"],
        bytes_max=row["bytes_max"],
    )
