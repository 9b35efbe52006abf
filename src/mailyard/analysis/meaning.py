"""What the rules find in a received mail: found when somebody first asks, then kept.

Nothing of it is found while mail comes in: it costs more than all of ingest. What is kept lies
beside its message, moves and goes with it, and is found anew when a rule has changed since.
"""

import asyncio
from uuid import UUID

import msgspec

from mailyard.core.errors import NotFound
from mailyard.core.limits import KIB
from mailyard.protocol.meaning.finding import Findings
from mailyard.protocol.meaning.read import RULES_VERSION, findings_of
from mailyard.storage.database import Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("meaning")
RECEIVING = load("receiving")

_ASIDE_BYTES = 64 * KIB  # larger mail is read in a thread

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Findings)


class Meanings:
    """The findings of all workspaces' mail."""

    def __init__(self, *, database: Database, raw_mail: RawMail = IN_ROWS) -> None:
        self._database = database
        self._raw_mail = raw_mail

    async def of(self, workspace_id: UUID, message_id: UUID) -> Findings:
        """What the rules find in a message. The caller has looked that it may be seen.

        Raises NotFound when it has gone meanwhile, BlobsAway.
        """
        kept = await self._database.fetchval(QUERIES.kept, workspace_id, message_id, RULES_VERSION)
        if kept is not None:
            return _DECODER.decode(kept)
        row = await self._database.fetchrow(QUERIES.raw, workspace_id, message_id)
        if row is None:
            raise NotFound("no such message")
        findings = await found_in(await self._raw_mail.of(row))
        await self._keep(workspace_id, message_id, findings)
        return findings

    async def _keep(self, workspace_id: UUID, message_id: UUID, findings: Findings) -> None:
        text = _ENCODER.encode(findings).decode()
        async with self._database.transaction() as tx:
            await self._database.fetch(RECEIVING.hold_classes, [workspace_id], tx=tx)
            await self._database.execute(
                QUERIES.keep, workspace_id, message_id, RULES_VERSION, text, tx=tx
            )


async def found_in(raw: bytes) -> Findings:
    """The findings of a mail; of a large one without holding up the loop."""
    if len(raw) > _ASIDE_BYTES:
        return await asyncio.to_thread(findings_of, raw)
    return findings_of(raw)
