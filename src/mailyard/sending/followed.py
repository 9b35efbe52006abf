"""A transport whose hand-overs are part of a trace: from the submission to the peer's answer.

Only what traces pays for it: who carries no mark submits to the transport itself.
"""

from collections.abc import Callable
from uuid import UUID

from mailyard.core import ids
from mailyard.observe import trace
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Transport


class FollowedTransport:
    """`transport`, with a span under each of `marks` for the first `most` recipients."""

    def __init__(self, transport: Transport, marks: bytes, most: int) -> None:
        self.name = transport.name
        self._transport = transport
        self._marks = marks
        self._left = most

    def submit(self, mail: Outgoing, done: Callable[[Handoff], None]) -> None:
        """As the transport does it."""
        spans: dict[UUID, list[trace.Span]] = {}
        for one in mail.recipients:
            if self._left > 0:
                self._left -= 1
                spans[one.delivery_id] = begin(self._marks, one.delivery_id, one.address)
        if not spans:
            self._transport.submit(mail, done)
            return

        def ended(handoff: Handoff) -> None:
            end(spans.pop(handoff.delivery_id, []), handoff)
            done(handoff)

        self._transport.submit(mail, ended)

    async def close(self, drain_s: float) -> None:
        """As the transport does it."""
        await self._transport.close(drain_s)


def begin(marks: bytes, delivery_id: UUID, address: str) -> list[trace.Span]:
    """The spans of handing a mail to one recipient, of whom the domain alone is said."""
    return [
        span
        for mark in trace.each(marks)
        if (
            span := trace.begin(
                "hand over",
                trace.CLIENT,
                mark,
                mailyard__delivery=ids.type_id(ids.DELIVERY, delivery_id),
                mailyard__destination=address.rpartition("@")[2],
            )
        )
        is not None
    ]


def end(spans: list[trace.Span], handoff: Handoff) -> None:
    """With the peer's answer."""
    for span in spans:
        span.end(
            "" if handoff.outcome is Outcome.ACCEPTED else handoff.outcome.value,
            mailyard__outcome=handoff.outcome.value,
            mailyard__transport=handoff.transport,
            smtp__reply_code=handoff.reply_code or 0,
        )
