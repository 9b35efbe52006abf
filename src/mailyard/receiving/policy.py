"""Whom a workspace takes mail from: lists, limits for a source, greylisting, spam.

All of it is optional, and a workspace without a row costs a listener nothing. The rows of those
that have one are read every REFRESH_S; a listener answers by what it read last.

The order at RCPT: who is allowed passes everything; who is blocked is refused (550); a source past
its rate waits (451); a stranger waits out his first try (451). At the end of a message its spam
points tag it or refuse it. What cannot be asked now (a limit, a scanner) stops no mail.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Protocol
from uuid import UUID

import asyncpg
import structlog

from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.net.guard import Network
from mailyard.protocol.address import ascii_domain, normalise
from mailyard.protocol.smtp.envelope import Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.spam.score import SpamScore
from mailyard.ratelimit.ratelimit import RateLimit
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("mail_policy")
_LOG = structlog.get_logger(__name__)

REFRESH_S = 2.0
ENTRIES_MAX = 5_000  # of a list
GREYLIST_MAX_S = 86_400
STRANGERS_KEPT_DAYS = 36  # whoever writes monthly waits once
_BITS = {4: 24, 6: 64}  # a source is a network: large senders try again from another address

BLOCKED = Reply(550, "5.7.1", "Mail from you is not taken there")
TOO_MUCH = Reply(451, "4.7.1", "Too much mail from your network, try again later")
GREYLISTED = Reply(451, "4.7.1", "Greylisted, try again in a few minutes")
SPAM = Reply(550, "5.7.1", "The message looks like spam")


@dataclass(frozen=True, slots=True)
class MailPolicy:
    """What a workspace says. Entries are networks (192.0.2.0/24), addresses, or domains with all
    below them. None: no such limit."""

    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    source_per_minute: int | None = None
    greylist_s: int | None = None
    spam_tag_at: float | None = None
    spam_refuse_at: float | None = None


@dataclass(frozen=True, slots=True)
class _Who:
    """A list made for asking."""

    networks: tuple[Network, ...] = ()
    names: frozenset[str] = field(default_factory=frozenset)

    def has(self, peer: str, sender: str) -> bool:
        if self.names and sender:
            domain = sender.rpartition("@")[2]
            labels = domain.split(".")
            if sender in self.names or any(
                ".".join(labels[at:]) in self.names for at in range(len(labels))
            ):
                return True
        if not self.networks:
            return False
        address = ip_address(peer)
        return any(address in network for network in self.networks)


@dataclass(frozen=True, slots=True)
class _Made:
    policy: MailPolicy
    allowed: _Who
    blocked: _Who


class Scanner(Protocol):
    """Who scores a message before its 250."""

    async def scan(
        self, peer: Peer, reverse_path: str, recipients: Sequence[str], content: bytes
    ) -> SpamScore:
        """Raises MailyardError when it cannot be said now."""
        ...


class MailPolicies:
    """Policies of all workspaces. The caller writes the audit rows."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    async def get(self, workspace_id: UUID, tx: Connection | None = None) -> MailPolicy:
        """What the workspace says."""
        row = await self._database.fetchrow(_SQL.get, workspace_id, tx=tx)
        return MailPolicy() if row is None else _policy(row)

    async def set(self, workspace_id: UUID, policy: MailPolicy, tx: Connection) -> MailPolicy:
        """Say it anew, as a whole. Raises InvalidInput naming the field."""
        checked = _checked(policy)
        await self._database.execute(
            _SQL.set,
            workspace_id,
            list(checked.allowed),
            list(checked.blocked),
            checked.source_per_minute,
            checked.greylist_s,
            checked.spam_tag_at,
            checked.spam_refuse_at,
            tx=tx,
        )
        return checked

    async def sweep(self) -> None:
        """Forget strangers who write no more."""
        await self._database.execute(_SQL.sweep, STRANGERS_KEPT_DAYS)


class Doorkeeper:
    """A listener's. `watch` reads the rows for as long as it runs."""

    def __init__(self, *, database: Database, limits: RateLimit, scanner: Scanner) -> None:
        self._database = database
        self._limits = limits
        self._scanner = scanner
        self._policies: Mapping[UUID, _Made] = {}

    @property
    def idle(self) -> bool:
        """Whether no workspace says anything."""
        return not self._policies

    async def watch(self) -> None:
        """Read what workspaces say, again and again, until cancelled."""
        while True:
            try:
                await self.refresh()
            except (MailyardError, asyncpg.PostgresError, OSError) as error:
                _LOG.warning("mail policies not read", error=str(error))
            await asyncio.sleep(REFRESH_S)

    async def refresh(self) -> None:
        """Read them now."""
        rows = await self._database.fetch(_SQL.all)
        self._policies = {row["workspace_id"]: _made(_policy(row)) for row in rows}

    async def at_recipient(
        self, workspace_id: UUID, peer: Peer, reverse_path: str, address: str
    ) -> Reply | None:
        """Why `peer` may not write there (now); None: he may."""
        made = self._policies.get(workspace_id)
        if made is None:
            return None
        sender = _sender(reverse_path)
        if made.allowed.has(peer.address, sender):
            return None
        if made.blocked.has(peer.address, sender):
            return BLOCKED
        policy, source = made.policy, _source(peer.address)
        if policy.source_per_minute is not None:
            rate = policy.source_per_minute
            key = f"mail:{workspace_id}:{source}"
            if await self._limits.take(key, 1.0, rate / 60.0, float(rate)) > 0.0:
                return TOO_MUCH
        if policy.greylist_s is not None:
            stranger = sha256(f"{source}\0{sender}\0{address}".encode()).digest()[:16]
            waited_s = await self._database.fetchval(_SQL.try_stranger, workspace_id, stranger)
            if waited_s < policy.greylist_s:
                return GREYLISTED
        return None

    async def at_message(
        self,
        workspaces: set[UUID],
        peer: Peer,
        reverse_path: str,
        recipients: Sequence[str],
        content: bytes,
    ) -> Reply | bytes:
        """A refusal, or a header line to put before the message (mostly none). Refused only where
        all its workspaces would."""
        asked = [made for one in workspaces if (made := self._policies.get(one)) is not None]
        asked = [
            made
            for made in asked
            if (made.policy.spam_tag_at, made.policy.spam_refuse_at) != (None, None)
            and not made.allowed.has(peer.address, _sender(reverse_path))
        ]
        if not asked:
            return b""
        try:
            found = await self._scanner.scan(peer, reverse_path, recipients, content)
        except MailyardError as error:
            _LOG.warning("a message is not scored", error=error.message)
            return b""
        refusing = [m for m in asked if _reaches(found.points, m.policy.spam_refuse_at)]
        if len(refusing) == len(workspaces):
            return SPAM
        if any(_reaches(found.points, made.policy.spam_tag_at) for made in asked) or refusing:
            rules = ", ".join(name for name, _ in found.fired[:10])
            return f"X-Mailyard-Spam: yes, {found.points:g} points: {rules}\r\n".encode()
        return b""


def _reaches(points: float, limit: float | None) -> bool:
    return limit is not None and points >= limit


def _sender(reverse_path: str) -> str:
    try:
        return normalise(reverse_path) if reverse_path else ""
    except InvalidInput:
        return reverse_path.lower()


def _source(address: str) -> str:
    one = ip_address(address)
    return str(ip_network(f"{one}/{_BITS[one.version]}", strict=False))


def _made(policy: MailPolicy) -> _Made:
    return _Made(policy, _who(policy.allowed), _who(policy.blocked))


def _who(entries: Sequence[str]) -> _Who:
    networks = tuple(ip_network(one) for one in entries if "/" in one)
    return _Who(networks, frozenset(one for one in entries if "/" not in one))


def _checked(policy: MailPolicy) -> MailPolicy:
    for name, value, most in (
        ("source_per_minute", policy.source_per_minute, 1_000_000),
        ("greylist_s", policy.greylist_s, GREYLIST_MAX_S),
    ):
        if value is not None and not 1 <= value <= most:
            raise InvalidInput(f"1 to {most}", field=name)
    for name, points in (
        ("spam_tag_at", policy.spam_tag_at),
        ("spam_refuse_at", policy.spam_refuse_at),
    ):
        if points is not None and not 0.0 < points <= 1000.0:
            raise InvalidInput("above 0, up to 1000", field=name)
    return MailPolicy(
        _entries(policy.allowed, "allowed"),
        _entries(policy.blocked, "blocked"),
        policy.source_per_minute,
        policy.greylist_s,
        policy.spam_tag_at,
        policy.spam_refuse_at,
    )


def _entries(entries: Sequence[str], path: str) -> tuple[str, ...]:
    if len(entries) > ENTRIES_MAX:
        raise InvalidInput(f"at most {ENTRIES_MAX} entries", field=path)
    return tuple(
        dict.fromkeys(_entry(one.strip(), f"{path}.{at}") for at, one in enumerate(entries))
    )


def _entry(text: str, path: str) -> str:
    try:
        return str(ip_network(text, strict=False))
    except ValueError:
        pass
    try:
        if "@" in text:
            return normalise(text)
        if "." in text and "/" not in text and " " not in text:
            return ascii_domain(text.lower().removesuffix("."))
    except InvalidInput:
        pass
    raise InvalidInput("a network like 192.0.2.0/24, an address, or a domain", field=path)


def _policy(row: asyncpg.Record) -> MailPolicy:
    values = dict(row)
    values.pop("workspace_id")
    return MailPolicy(
        **{**values, "allowed": tuple(row["allowed"]), "blocked": tuple(row["blocked"])}
    )
