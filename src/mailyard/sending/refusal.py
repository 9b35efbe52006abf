"""What a refusal at hand-over says of its recipient: judged by the rules that judge bounces.

Collected between two steps of the hand-off window and written in the step's transaction, so that a
hard "no such user" of a server stops the next mail as a bounce would. A refusal whose fault is the
way's, or the policy's, or the mail's stops nobody.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from uuid import UUID

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import normalise
from mailyard.protocol.report import Stage
from mailyard.protocol.report.codes import find_status
from mailyard.sending.bounce import Verdict, classify_reply
from mailyard.sending.suppress import ALL, Reason, Stop, Suppressions
from mailyard.sending.transport import Handoff, Outcome
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("returns")
_SENDING_SQL = load("sending")
_STAGES = {
    "connect": Stage.CONNECT,
    "hello": Stage.HELLO,
    "tls": Stage.HELLO,
    "mail": Stage.MAIL,
    "rcpt": Stage.RCPT,
    "data": Stage.DATA,
    "content": Stage.DATA,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A recipient who was refused for good, and what was said."""

    delivery_id: UUID
    workspace_id: UUID
    address: str
    handoff: Handoff


class Refusals:
    """Those of one step."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Refusal] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, workspace_id: UUID, address: str, handoff: Handoff) -> None:
        """Take an answer, if it is a refusal of the recipient or his mail."""
        if handoff.outcome is Outcome.NEVER and not handoff.route_fault:
            self._waiting.append(Refusal(handoff.delivery_id, workspace_id, address, handoff))

    async def tell(
        self, database: Database, tx: Connection, recorded: Collection[UUID] | None = None
    ) -> None:
        """Write reasons and suppressions. `recorded`: whose results this step has written; None:
        all of them."""
        told = [one for one in self._waiting if recorded is None or one.delivery_id in recorded]
        if not told:
            return
        verdicts = [judge(one.handoff) for one in told]
        ids = [one.delivery_id for one in told]
        await database.execute(
            _SQL.give_reasons,
            min(ids),
            max(ids),
            ids,
            [one.workspace_id for one in told],
            [verdict.reason.value for verdict in verdicts],
            tx=tx,
        )
        stops = [
            Stop(
                one.workspace_id,
                _normal(one.address),
                ALL,
                Reason.HARD_BOUNCE,
                source=one.handoff.transport,
                evidence=f"{one.handoff.reply_code or ''} {one.handoff.reply}".strip(),
                delivery_id=one.delivery_id,
            )
            for one, verdict in zip(told, verdicts, strict=True)
            if verdict.suppresses
        ]
        await Suppressions(database=database).stop(stops, tx)
        counts = Counter(
            (one.workspace_id, f"bounce.{verdict.reason}")
            for one, verdict in zip(told, verdicts, strict=True)
        )
        await database.execute(
            _SENDING_SQL.insert_counter_deltas,
            [workspace_id for workspace_id, _ in counts],
            [name for _, name in counts],
            [workspace_id for workspace_id, _ in counts],
            list(counts.values()),
            tx=tx,
        )


def judge(handoff: Handoff) -> Verdict:
    """What the answer means. The code of an HTTP API is no reply code of SMTP: such an answer is
    judged by its words alone, and suppresses nobody."""
    stage, reply = _STAGES.get(handoff.stage), handoff.reply
    verdict = classify_reply(handoff.reply_code or 550, find_status(reply), reply, stage)
    return verdict if stage is not None else replace(verdict, suppresses=False)


def _normal(address: str) -> str:
    try:
        return normalise(address)
    except InvalidInput:
        return address.lower()
