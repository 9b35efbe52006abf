"""Trying a provider: one mail through it, and what it said.

The mail has a fixed text, so that this is no way to send. It goes past routes and breakers, on a
connection of its own, and leaves no delivery behind.
"""

import asyncio
from dataclasses import dataclass
from uuid import UUID

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict
from mailyard.protocol.address import normalise, parse_mailbox
from mailyard.protocol.dkim.sign import sign_all
from mailyard.sending.compose import compose
from mailyard.sending.provider import ProviderBook
from mailyard.sending.sign import Signing, sender_domain
from mailyard.sending.suppress import Suppressions
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.upkeep import Shelf

ANSWER_S = 30.0
_CLOSE_S = 2.0
_TEXT = (
    "This mail was sent to try the provider {name}.\n\n"
    "If you can read it, the provider works. There is nothing else to do.\n"
)


@dataclass(frozen=True, slots=True)
class Trial:
    """What the provider said. `outcome`: accepted, later, never or unknown."""

    outcome: str
    reply_code: int | None
    reply: str


class Trials:
    """Tries the providers of workspaces."""

    def __init__(
        self,
        *,
        providers: ProviderBook,
        shelf: Shelf,
        signing: Signing,
        suppressions: Suppressions,
        hostname: str,
        clock: Clock | None = None,
    ) -> None:
        self._providers = providers
        self._shelf = shelf
        self._signing = signing
        self._suppressions = suppressions
        self._hostname = hostname
        self._clock = clock or SystemClock()

    async def run(self, workspace_id: UUID, provider_id: UUID, sender: str, to: str) -> Trial:
        """Send one mail now. Raises NotFound, InvalidInput naming an address, Conflict for a
        recipient who is to get no mail."""
        opened = await self._providers.open(workspace_id, provider_id)
        mail = await self._mail(workspace_id, opened.name, sender, to)
        address = normalise(mail.recipients[0].address)
        if await self._suppressions.check_many([(workspace_id, address)]):
            raise Conflict(f"{to} is on the suppression list", field="to")
        transport = self._shelf.transport(opened)
        answer: asyncio.Future[Handoff] = asyncio.get_running_loop().create_future()

        def done(handoff: Handoff) -> None:
            if not answer.done():
                answer.set_result(handoff)

        try:
            transport.submit(mail, done)
            async with asyncio.timeout(ANSWER_S):
                handoff = await answer
        except TimeoutError:
            reason = f"no answer within {ANSWER_S:g} s"
            return Trial(Outcome.UNKNOWN.value, None, reason)
        finally:
            await transport.close(_CLOSE_S)
        return Trial(handoff.outcome.value, handoff.reply_code, handoff.reply)

    async def _mail(self, workspace_id: UUID, name: str, sender: str, to: str) -> Outgoing:
        now = self._clock.now()
        author, recipient = parse_mailbox(sender), parse_mailbox(to)
        mail = compose(
            sender=author,
            to=[recipient],
            cc=[],
            reply_to=[],
            subject=f"A test of the provider {name}",
            text=_TEXT.format(name=name),
            html="",
            headers={},
            attachments=[],
            date=now,
            message_id=f"{ids.uuid7().hex}@{self._hostname}",
        )
        signers = await self._signing.signers(workspace_id, sender_domain(sender))
        signatures = sign_all(signers, mail.content, now.timestamp()) if signers else b""
        return Outgoing(
            reverse_path=author.address,
            recipients=(Recipient(ids.uuid7(), recipient.address),),
            content=signatures + mail.content,
            eight_bit=mail.eight_bit,
            smtp_utf8=mail.smtp_utf8,
            workspace_id=workspace_id,
        )
