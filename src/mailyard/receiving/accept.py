"""The decision behind each `250`: is the recipient ours, and is the message durable?

What is stored is what came, with our trace line before it (RFC 5321 section 4.4). The reverse path
is kept beside the bytes and not as a Return-Path line, so that the bytes stay the peer's. A message
is stored once a workspace, however many of its inboxes it is for, in the longest of their retention
classes. What comes back to a return-path is stored like it, in nobody's name: whose it is, the
delivery says that the address names, and who sends mail reads that (`ReturnMail`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from math import inf
from typing import Protocol
from uuid import UUID

from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import InvalidInput, MailyardError, Unavailable
from mailyard.core.ids import MESSAGE, type_id, uuid7
from mailyard.core.limits import (
    ACCEPT_PATIENCE_S,
    ACCEPT_WAITING_BYTES,
    ACCEPT_WAITING_MESSAGES,
    ROUTE_PATIENCE_S,
)
from mailyard.observe import trace
from mailyard.observe.metrics import MESSAGES_DROPPED
from mailyard.protocol.address import normalise
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.receiving.commit import RETURNED_DAYS, TRY_LATER, Arrival, Enqueuer, GroupCommit, Row
from mailyard.receiving.later import Later
from mailyard.receiving.retention import longest
from mailyard.receiving.route import CLOSED, NOBODY, Elsewhere, Neighbours, Route, Router
from mailyard.receiving.trace_line import trace_head
from mailyard.storage.blob import BlobsAway
from mailyard.storage.database import Database
from mailyard.storage.raw_mail import RawMail

RECIPIENT_OK = Reply(250, "2.1.5", "Ok")
NO_SUCH_INBOX = Reply(550, "5.1.1", "No such inbox here")
NO_SUCH_RETURN_PATH = Reply(550, "5.1.1", "No mail was sent from that return-path")
NO_MORE_TODAY = Reply(452, "4.2.2", "Its workspace has had all the mail of its plan today")
NOT_AN_ADDRESS = Reply(553, "5.1.3", "That is not a mailbox address")
CLOSED_INBOX = Reply(550, "5.2.1", "The inbox was for one mail, and takes no more")
INBOX_FULL = Reply(452, "4.2.2", "The inbox is full, try again later")
NEVER_FITS = Reply(552, "5.2.3", "The message is larger than all that the inbox may hold")
DROPPED = Reply(250, "2.0.0", "Ok")
MOVING = Reply(451, "4.3.2", "The mailbox is being moved, try again in a minute")
INBOX_GONE = Reply(554, "5.1.1", "The inbox is gone")
OVERLOADED = Reply(451, "4.3.1", "Too much mail at once, try again later")

_REMEMBERED_ROUTES = 20_000
USED_UP_S = 5.0  # how old the knowledge is of who has had all the mail of a plan


class ReturnMail(Protocol):
    """Which addresses are for mail that comes back (`sending.returns.address` fits)."""

    def takes(self, address: str) -> bool | None:
        """Whether mail to the normalised `address` is taken; None: it is no such address."""
        ...


class UsedUp(Protocol):
    """Which workspaces may have no more mail today (`access.usage` fits)."""

    @property
    def any(self) -> bool:
        """Whether it can ever be one."""
        ...

    async def used_up(self) -> frozenset[UUID]:
        """All of them, as of now."""
        ...


class Door(Protocol):
    """What workspaces say of whom they take mail from (`receiving.policy.Doorkeeper` fits)."""

    @property
    def idle(self) -> bool:
        """Whether no workspace says anything."""
        ...

    async def watch(self) -> None:
        """Keep up with what they say, until cancelled."""
        ...

    async def at_recipient(
        self, workspace_id: UUID, peer: Peer, reverse_path: str, address: str
    ) -> Reply | None:
        """Why `peer` may not write there (now)."""
        ...

    async def at_message(
        self,
        workspaces: set[UUID],
        peer: Peer,
        reverse_path: str,
        recipients: Sequence[str],
        content: bytes,
    ) -> Reply | bytes:
        """A refusal, or a header line for the front of the message, or nothing."""
        ...


class Acceptor:
    """Decides for a listener's sessions (`receiving.handler.SessionHandler`). One event loop's.

    `hostname` is the name in our trace lines. What waits for its commit is bounded by
    `waiting_bytes` and `waiting_messages`; past that the peer keeps its mail (451). Large mail is
    first put where `raw_mail` says; while that is away the peer keeps it too. `residence`: what is
    answered for a workspace that is not in this database cluster, or is about to leave it.
    """

    def __init__(
        self,
        *,
        database: Database,
        engine: Enqueuer,
        hostname: str,
        returns: ReturnMail | None = None,
        allowance: UsedUp | None = None,
        elsewhere: Elsewhere | None = None,
        neighbours: Neighbours | None = None,
        door: Door | None = None,
        residence: Callable[[UUID], Reply | None] | None = None,
        raw_mail: RawMail | None = None,
        clock: Clock | None = None,
        waiting_bytes: int = ACCEPT_WAITING_BYTES,
        waiting_messages: int = ACCEPT_WAITING_MESSAGES,
        patience_s: float = ACCEPT_PATIENCE_S,
        route_patience_s: float = ROUTE_PATIENCE_S,
    ) -> None:
        self._clock = clock or SystemClock()
        self._hostname = hostname
        self._returns = returns
        self._allowance = allowance if allowance is not None and allowance.any else None
        self._used_up: frozenset[UUID] = frozenset()
        self._looking: asyncio.Task[None] | None = None
        self._door = door
        self._residence = residence
        self._watching: asyncio.Task[None] | None = None
        self._raw_mail = raw_mail
        outside = raw_mail is not None and raw_mail.store is not None
        self._in_row_bytes: float = raw_mail.above_bytes if raw_mail and outside else inf
        self._putting: set[asyncio.Task[Reply]] = set()
        self._putting_bytes = 0
        self._waiting_bytes = waiting_bytes
        self._waiting_messages = waiting_messages
        self._router = Router(
            database=database,
            answer=self._answer_recipient,
            elsewhere=elsewhere,
            neighbours=neighbours,
            clock=self._clock,
            patience_s=route_patience_s,
        )
        self._commit = GroupCommit(
            database=database, engine=engine, clock=self._clock, patience_s=patience_s
        )
        # Where recipients that were answered with 250 lead. Not a cache of answers: it only spares
        # a message the question that its own RCPT has just asked. The older half goes at a time.
        self._routes: dict[str, Route] = {}
        self._older_routes: dict[str, Route] = {}
        self._date = (0, "")

    def accept_recipient(
        self,
        peer: Peer,
        reverse_path: str,
        address: str,
    ) -> Reply | Later | Awaitable[Reply]:
        """RCPT: 250; 550 for an address that leads nowhere, to no inbox, route or return-path of
        ours, and for an inbox that is closed; 452 for one that is full."""
        try:
            whole = self._whole(address)
        except InvalidInput:
            return NOT_AN_ADDRESS
        taken = self._returns.takes(whole) if self._returns is not None else None
        if taken is None:
            found = self._router.find(whole)
            if self._door is None or self._door.idle:
                return found
            return self._at_door(self._door, found, peer, reverse_path, whole)
        return RECIPIENT_OK if taken else NO_SUCH_RETURN_PATH

    def accept_message(
        self, envelope: Envelope, content: bytes
    ) -> Reply | Later | Awaitable[Reply]:
        """The end of DATA: 250 after the commit, 451 when there is no room or no database."""
        commit = self._commit
        if (commit.held_messages or self._putting_bytes) and (
            commit.held_bytes + self._putting_bytes + len(content) > self._waiting_bytes
            or commit.held_messages >= self._waiting_messages
        ):
            return OVERLOADED
        routes: dict[UUID | str, Route] = {}
        for address in envelope.recipients:
            route = self._remembered(address) or self._known(self._whole(address))
            if route is None:
                return self._accept_after_lookup(envelope, content)
            routes[route.inbox_id or route.address] = route
        if self._door is None or self._door.idle:
            return self._store(envelope, content, list(routes.values()))
        return self._scanned(self._door, envelope, content, list(routes.values()))

    def start(self) -> None:
        """Begin to look which workspaces have had all the mail of their plans, if there are any,
        and whom workspaces take mail from."""
        if self._allowance is not None and self._looking is None:
            self._looking = asyncio.create_task(self._look(self._allowance), name="plans")
        if self._door is not None and self._watching is None:
            self._watching = asyncio.create_task(self._door.watch(), name="policies")

    async def _look(self, allowance: UsedUp) -> None:
        while True:
            with suppress(MailyardError):  # the database is away: what was known stays
                self._used_up = await allowance.used_up()
            await asyncio.sleep(USED_UP_S)

    async def close(self) -> None:
        """Wait until every message that came in whole has its reply."""
        for task in (self._looking, self._watching):
            if task is not None:
                task.cancel()
        await self._router.close()
        if self._putting:
            await asyncio.wait(self._putting)
        await self._commit.close()

    async def _at_door(
        self, door: Door, found: Later, peer: Peer, reverse_path: str, address: str
    ) -> Reply:
        """RCPT where some workspace says whom it takes mail from."""
        reply = await found
        route = self._remembered(address)
        if reply is not RECIPIENT_OK or route is None:
            return reply
        own = route.filed_under or route.address
        return await door.at_recipient(route.workspace_id, peer, reverse_path, own) or reply

    async def _scanned(
        self, door: Door, envelope: Envelope, content: bytes, routes: list[Route]
    ) -> Reply:
        """The end of DATA where some workspace says what it does with spam."""
        workspaces = {route.workspace_id for route in routes if not route.dropped}
        path, recipients = envelope.reverse_path, envelope.recipients
        said = await door.at_message(workspaces, envelope.peer, path, recipients, content)
        if isinstance(said, Reply):
            return said
        stored = self._store(envelope, said + content, routes)
        return stored if isinstance(stored, Reply) else await stored

    def _whole(self, address: str) -> str:
        """`address` normalised. `<Postmaster>` may stand without a domain (RFC 5321 4.5.1)."""
        if "@" not in address and address.lower() == "postmaster":
            address = f"{address}@{self._hostname}"
        return normalise(address)

    def _answer_recipient(self, address: str, route: Route | None) -> Reply:
        if route is None:
            self._routes.pop(address, None)  # what we know to be gone takes no mail any more
            self._older_routes.pop(address, None)
            return NO_SUCH_INBOX
        if route.region:
            # Not for good: by the next try the home region is reached, or has been taken over.
            return Reply(451, "4.4.4", f"At home in region {route.region}")
        if self._residence is not None and (away := self._residence(route.workspace_id)):
            return away
        if route.workspace_id in self._used_up:
            return NO_MORE_TODAY
        if route.room is not None and route.room <= 0:
            return CLOSED_INBOX if route.room == CLOSED else INBOX_FULL
        if len(self._routes) >= _REMEMBERED_ROUTES:
            self._older_routes, self._routes = self._routes, {}
        self._routes[address] = route
        return RECIPIENT_OK

    def _known(self, address: str) -> Route | None:
        """Where a normalised address leads, as far as that needs no question."""
        if self._returns is not None and self._returns.takes(address):
            return Route(address, NOBODY, None, RETURNED_DAYS)
        return self._remembered(address)

    def _remembered(self, address: str) -> Route | None:
        return self._routes.get(address) or self._older_routes.get(address)

    async def _accept_after_lookup(self, envelope: Envelope, content: bytes) -> Reply:
        """For a session so old that the routes of its recipients are no longer remembered."""
        routes: dict[UUID | str, Route] = {}
        try:
            for address in dict.fromkeys(map(self._whole, envelope.recipients)):
                route = self._known(address)
                if route is None:
                    await self._router.find(address)
                    route = self._remembered(address)
                if route is not None:
                    routes[route.inbox_id or route.address] = route
        except Unavailable:
            return TRY_LATER
        if not routes:
            return INBOX_GONE
        stored = self._store(envelope, content, list(routes.values()))
        return stored if isinstance(stored, Reply) else await stored

    def _store(
        self, envelope: Envelope, content: bytes, routes: list[Route]
    ) -> Reply | Later | Awaitable[Reply]:
        """Durable for all of `routes` that keep mail. What no inbox among them has room for is
        refused; where one has, all take it: an inbox may hold one message more than its quota."""
        for route in routes:
            if route.dropped or route.room is not None:
                kept = _kept(routes, len(content))
                if isinstance(kept, Reply):
                    return kept
                routes = kept
                break
        unix_s = self._clock.now().timestamp()
        message_ids = []
        rows = []
        for own in _by_workspace(routes):
            message_id = uuid7(int(unix_s * 1000))
            name = type_id(MESSAGE, message_id)
            message_ids.append(name)
            raw = self._trace(envelope, name, own, int(unix_s)) + content
            rows.append(_row(envelope, raw, message_id, own))
        reply = Later()
        arrival = Arrival(
            rows,
            size_bytes=len(content) * len(rows),
            arrived_at=self._clock.monotonic(),
            when_stored=Reply(250, "2.0.0", f"Ok: queued as {message_ids[0]}"),
            reply=reply,
            trace=trace.marks(),
        )
        if len(content) > self._in_row_bytes and self._raw_mail is not None:
            putting = asyncio.create_task(self._put_and_store(self._raw_mail, arrival))
            self._putting.add(putting)
            putting.add_done_callback(self._putting.discard)
            return putting
        self._commit.add(arrival)
        return reply

    async def _put_and_store(self, raw_mail: RawMail, arrival: Arrival) -> Reply:
        """Large mail: its bytes are durable outside before the commit that names them begins."""
        self._putting_bytes += arrival.size_bytes
        try:
            puts = [raw_mail.put(row[1], row[2], row[0], row[-1]) for row in arrival.rows]
            arrival.blobs = await asyncio.gather(*puts)
        except BlobsAway:
            return TRY_LATER
        finally:
            self._putting_bytes -= arrival.size_bytes
        arrival.rows = [(*row[:-1], b"") for row in arrival.rows]
        arrival.size_bytes = 0
        self._commit.add(arrival)
        return await arrival.reply

    def _trace(self, envelope: Envelope, name: str, routes: list[Route], unix_s: int) -> bytes:
        """Our Received line (RFC 5321 4.4). It names a recipient only where there is just one."""
        only = f"\r\n\tfor <{routes[0].address}>" if len(envelope.recipients) == 1 else ""
        if self._date[0] != unix_s:
            self._date = (unix_s, format_datetime(datetime.fromtimestamp(unix_s, UTC)))
        head = trace_head(envelope.peer, envelope.smtp_utf8, self._hostname)
        return f"{head} id {name}{only};\r\n\t{self._date[1]}\r\n".encode("utf-8", "replace")


def _by_workspace(routes: list[Route]) -> list[list[Route]]:
    """The routes of each workspace."""
    if len(routes) == 1:
        return [routes]
    by_workspace: dict[UUID, list[Route]] = {}
    for route in routes:
        by_workspace.setdefault(route.workspace_id, []).append(route)
    return list(by_workspace.values())


def _kept(routes: list[Route], size_bytes: int) -> list[Route] | Reply:
    """Those of `routes` that keep a message of that size, or what is said when there is none."""
    kept = [route for route in routes if not route.dropped]
    if len(kept) < len(routes):
        MESSAGES_DROPPED.inc()
    if not kept:
        return DROPPED
    if any(route.room is None or route.room >= size_bytes for route in kept):
        return kept
    if all(route.bytes_max is not None and route.bytes_max < size_bytes for route in kept):
        return NEVER_FITS
    return INBOX_FULL


def _row(envelope: Envelope, raw: bytes, message_id: UUID, routes: list[Route]) -> Row:
    """The copy of one workspace, whose inboxes `routes` leads to."""
    filed_under = None
    if routes[0].filed_under or (len(routes) > 1 and any(one.filed_under for one in routes)):
        filed_under = [route.filed_under or route.address for route in routes]
    return (
        message_id,
        routes[0].workspace_id,
        longest([route.retention_days for route in routes]),
        envelope.reverse_path,
        [route.address for route in routes],
        [route.inbox_id for route in routes if route.inbox_id is not None],
        envelope.peer.hello,
        envelope.peer.address,
        len(raw),
        filed_under,
        raw,
    )
