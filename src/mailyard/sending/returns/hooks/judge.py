"""What a provider tells, judged by our rules: its own word counts where the answer says nothing.

A provider's "permanent" alone suppresses nobody whose answer speaks of policy, and its "temporary"
keeps our rules from suppressing.
"""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from mailyard.protocol.report.codes import find_status, is_specific
from mailyard.sending.bounce import Reason, classify_reply
from mailyard.sending.bounce.reason import is_hard
from mailyard.sending.returns.hooks.told import Told
from mailyard.sending.returns.occurrence import Occurrence, What, key_of

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def occurrence_of(told: Told, source: str, delivery_id: UUID, workspace_id: UUID) -> Occurrence:
    """`told` as it goes into the story of a delivery of this workspace."""
    reason, suppresses = "", False
    if told.what is What.BOUNCED:
        reason, suppresses = _judged(told)
    elif told.what is What.COMPLAINED:
        reason, suppresses = Reason.COMPLAINT, True
    code = told.code
    return Occurrence(
        delivery_id,
        told.what,
        source,
        key_of(source, told.what, told.event_id),
        _EPOCH + timedelta(milliseconds=told.at_ms),
        named=(told.recipient,) if told.recipient else (),
        workspace_id=workspace_id,
        reason=reason,
        status=told.status[:20],
        reply_code=int(code) if len(code) == 3 and code.isdecimal() else None,
        text=told.text,
        suppresses=suppresses,
    )


def _judged(told: Told) -> tuple[str, bool]:
    """Why it bounced, and whether nothing should be sent there again."""
    code, status = told.code or ("450" if told.hard is False else "550"), _status(told)
    verdict = classify_reply(code, status, told.text)
    if verdict.reason is not Reason.UNDEFINED and (told.text or status):
        return verdict.reason, verdict.suppresses and told.hard is not False
    if not told.reason:
        return Reason.UNDEFINED, False
    hard = is_hard(Reason(told.reason), temporary=told.hard is False)
    return told.reason, hard and status[1:4] != ".7."


def _status(told: Told) -> str:
    """The status that the refusing server gave; where its words do not say, the provider's own."""
    quoted = find_status(told.text)
    return quoted if is_specific(quoted) else told.status or quoted
