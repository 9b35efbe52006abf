"""Which database cluster takes a mail: the listener's decisions over one acceptor for each.

A recipient is asked for in the cluster that took him last, else in the one that the directory of
names leads to: that of his address, or of his domain, where a workspace has it. Only whom the
directory does not know is asked for in all clusters at once, before he is refused for good. He is
unknown (550) only by a directory that is not old: otherwise the peer comes back (451), because a
mail that is refused for good is a mail lost.

A mail for recipients in several clusters is stored in each, and acknowledged when all have it.
Where one could not, the peer repeats it to all, and those that had it have it twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from uuid import UUID

import msgspec

from mailyard.core.errors import MailyardError
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.receiving.accept import MOVING, NO_SUCH_INBOX, Acceptor
from mailyard.receiving.commit import TRY_LATER
from mailyard.receiving.later import Later
from mailyard.storage.directory import Directory

_REMEMBERED = 50_000

Answering = Reply | Later | Awaitable[Reply]
# The cluster that mail to an address comes back to; None: it is no return-path.
Returning = Callable[[str], Awaitable[str | None]]
# The cluster that the directory has an address in, and whether it has its whole domain; None: it
# does not know the address.
Naming = Callable[[str], Awaitable[tuple[str, bool] | None]]


def residence(directory: Directory, shard: str) -> Callable[[UUID], Reply | None]:
    """What the acceptor of `shard` answers for workspaces that are not there to stay."""

    def away(workspace_id: UUID) -> Reply | None:
        place = directory.known(workspace_id)
        if place.moving:
            return MOVING
        return None if place.shard == shard else NO_SUCH_INBOX

    return away


class ShardedAcceptor:
    """Decides for a listener's sessions (`receiving.handler.SessionHandler`)."""

    def __init__(
        self,
        *,
        acceptor_of: Callable[[str], Acceptor],
        shards: Callable[[], Mapping[str, bool]],
        directory: Directory,
        returning: Returning,
        naming: Naming,
    ) -> None:
        """`acceptor_of` raises Unavailable; `shards`: all by name, and whether each was reached."""
        self._acceptor_of = acceptor_of
        self._shards = shards
        self._directory = directory
        self._returning = returning
        self._naming = naming
        self._took: dict[str, str] = {}  # by address, the cluster that said 250

    async def accept_recipient(self, peer: Peer, reverse_path: str, address: str) -> Reply:
        """RCPT: what the cluster says in which the recipient is."""
        try:
            back = await self._returning(address)
        except MailyardError:
            return TRY_LATER
        if back is not None:
            return await self._ask_one(back, peer, reverse_path, address)
        known = self._took.get(address)
        if known is not None:
            reply = await self._ask_one(known, peer, reverse_path, address)
            if reply.code == 250:
                return reply
        reply = await self._ask_named(peer, reverse_path, address)
        if reply.code // 100 == 5 and not self._directory.fresh:
            await self._directory.look()
            reply = await self._ask_named(peer, reverse_path, address)
            if reply.code // 100 == 5 and not self._directory.fresh:
                return TRY_LATER
        return reply

    async def _ask_named(self, peer: Peer, reverse_path: str, address: str) -> Reply:
        """What the cluster says that the directory leads to; all of them where it leads nowhere, or
        cannot be asked."""
        try:
            named = await self._naming(address)
        except MailyardError:
            named = None
        if named is not None:
            shard, whole_domain = named
            reply = await self._ask_one(shard, peer, reverse_path, address)
            if whole_domain or reply is not NO_SUCH_INBOX:
                return reply
        return await self._ask_all(peer, reverse_path, address)

    async def _ask_all(self, peer: Peer, reverse_path: str, address: str) -> Reply:
        """The best answer: 250, then one that says more than that he is unknown."""
        names = list(self._shards())
        replies = await asyncio.gather(
            *(self._ask_one(name, peer, reverse_path, address) for name in names)
        )
        return min(replies, key=_rank)

    async def _ask_one(self, shard: str, peer: Peer, reverse_path: str, address: str) -> Reply:
        try:
            reply = await _settled(
                self._acceptor_of(shard).accept_recipient(peer, reverse_path, address)
            )
        except MailyardError:
            return TRY_LATER
        if reply.code == 250:
            if len(self._took) >= _REMEMBERED:
                self._took.clear()
            self._took[address] = shard
        return reply

    async def accept_message(self, envelope: Envelope, content: bytes) -> Reply:
        """The end of DATA: 250 when every cluster that has a recipient has the mail."""
        parts: dict[str, list[str]] = {}
        for address in envelope.recipients:
            shard = self._took.get(address)
            if shard is None:  # a session so old that it is forgotten
                reply = await self.accept_recipient(envelope.peer, envelope.reverse_path, address)
                shard = self._took.get(address)
                if shard is None:
                    return reply if reply.code // 100 == 4 else TRY_LATER
            parts.setdefault(shard, []).append(address)
        replies = await asyncio.gather(
            *(self._store(shard, envelope, whom, content) for shard, whom in parts.items())
        )
        return max(replies, key=lambda reply: (reply.code // 100 == 4, reply.code))

    async def _store(
        self, shard: str, envelope: Envelope, recipients: list[str], content: bytes
    ) -> Reply:
        part = msgspec.structs.replace(envelope, recipients=tuple(recipients))
        try:
            return await _settled(self._acceptor_of(shard).accept_message(part, content))
        except MailyardError:
            return TRY_LATER


def _rank(reply: Reply) -> int:
    if reply.code == 250:
        return 0
    if reply is not NO_SUCH_INBOX:
        return 1 if reply.code // 100 == 4 else 2
    return 3


async def _settled(answer: Answering) -> Reply:
    return answer if isinstance(answer, Reply) else await answer
