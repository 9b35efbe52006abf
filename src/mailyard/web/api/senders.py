"""Who sent a mail, and what inboxes do with forged mail."""

from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

from msgspec import Meta

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids
from mailyard.core.errors import NotFound
from mailyard.protocol.authentication import Verdict
from mailyard.web.api.page import (
    Input,
    MessageId,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    read_cursor,
    write_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

if TYPE_CHECKING:
    from mailyard.app import Application

TAG = "Senders"

_Policy = Literal["accept", "tag", "refuse"]
_STANDING = (
    "verified: DMARC passes for the domain of the From. unverified: nothing speaks for it, and "
    "nothing against it that its domain wants acted on. forged: its domain asks that such mail be "
    "refused or put aside. unknown: DNS could not be asked."
)


class SpfItem(Output, gc=False):
    """SPF (RFC 7208) of the envelope's sender, or of the HELO name where there is none."""

    result: str
    domain: str
    identity: str
    reason: str
    explanation: Annotated[str, Meta(description="The domain's own words; a stranger's text.")]


class DkimItem(Output, gc=False):
    """One DKIM signature (RFC 6376)."""

    result: str
    domain: str
    selector: str
    algorithm: str
    identity: str
    reason: str
    testing: bool


class DmarcItem(Output, gc=False):
    """DMARC (RFC 9989, RFC 7489) of the domain in the From."""

    result: str
    domain: str
    policy: Annotated[str, Meta(description="What its owner asks for: none, quarantine, reject.")]
    record_at: str
    testing: bool
    reason: str


class ArcItem(Output, gc=False):
    """The chain of those who forwarded it (RFC 8617), the first one first."""

    result: str
    sealers: list[str]
    reason: str


class Authentication(Output, gc=False):
    """Who sent a message, as it was found when it came in."""

    standing: Annotated[
        Literal["verified", "unverified", "forged", "unknown"], Meta(description=_STANDING)
    ]
    tagged: Annotated[bool, Meta(description="Forged, in an inbox that tags such mail.")]
    results: Annotated[
        str, Meta(description="All of it as an Authentication-Results field says it (RFC 8601).")
    ]
    spf: SpfItem
    dkim: list[DkimItem]
    dmarc: DmarcItem
    arc: ArcItem


class SenderPolicy(Input):
    """What an inbox does with forged mail from the next one on."""

    on_forged: Annotated[
        _Policy,
        Meta(
            description="accept: takes it. tag: takes it and marks it. refuse: keeps it out; it "
            "stays to be looked at under `held` and is never bounced."
        ),
    ]


class SenderPolicyItem(Output):
    """What an inbox does with forged mail."""

    on_forged: _Policy


class HeldItem(Output, gc=False):
    """A message that an inbox keeps out."""

    id: MessageId
    state: Annotated[
        Literal["waiting", "refused"], Meta(description="waiting: its verdict is still to come.")
    ]
    recipient: str
    received_at: Moment
    from_address: str
    from_name: str
    subject: str
    size_bytes: int


class HeldPage(Output):
    """What an inbox keeps out, newest first."""

    items: list[HeldItem]
    next_cursor: NextCursor


class Released(Output):
    """A message that is in its inbox now."""

    id: MessageId


async def authentication_of(
    app: "Application", workspace_id: UUID, message_id: UUID, inbox_id: UUID
) -> Authentication | None:
    """The verdict on a message as its inbox has it; None until it is judged."""
    verdict = await app.verdicts.get(workspace_id, message_id)
    if verdict is None:
        return None
    tagged = await app.verdicts.is_tagged(workspace_id, inbox_id, verdict)
    return authentication(verdict, app.verdicts.field(verdict), tagged)


def authentication(verdict: Verdict, field: str, tagged: bool) -> Authentication:
    spf, dmarc, arc = verdict.spf, verdict.dmarc, verdict.arc
    return Authentication(
        standing=verdict.standing.value,
        tagged=tagged,
        results=field,
        spf=SpfItem(
            result=spf.status,
            domain=spf.domain,
            identity=verdict.spf_identity,
            reason=spf.reason,
            explanation=spf.explanation,
        ),
        dkim=[
            DkimItem(
                result=one.status,
                domain=one.domain,
                selector=one.selector,
                algorithm=one.algorithm,
                identity=one.identity,
                reason=one.reason,
                testing=one.testing,
            )
            for one in verdict.dkim
        ],
        dmarc=DmarcItem(
            result=dmarc.status,
            domain=dmarc.domain,
            policy=dmarc.policy,
            record_at=dmarc.at,
            testing=dmarc.testing,
            reason=dmarc.reason,
        ),
        arc=ArcItem(result=arc.status, sealers=list(arc.sealers), reason=arc.reason),
    )


async def get_policy(call: Call[None, None]) -> SenderPolicyItem:
    inbox = await call.app.inboxes.get(call.workspace_id, call.ids["inbox_id"])
    policy = await call.app.verdicts.policy(call.workspace_id, inbox.id, inbox.address)
    return SenderPolicyItem(on_forged=_word(policy))


async def set_policy(call: Call[SenderPolicy, None]) -> Answer:
    from mailyard.receiving.verdict import OnForged

    inbox = await call.app.inboxes.get(call.workspace_id, call.ids["inbox_id"])
    wanted = OnForged[call.body.on_forged.upper()]
    async with call.app.database.transaction() as tx:
        before = await call.app.verdicts.set_policy(
            call.workspace_id, inbox.id, inbox.address, wanted, tx
        )
        changed = Change(
            "inbox.sender_policy",
            ids.type_id(ids.INBOX, inbox.id),
            {"on_forged": _word(before)},
            {"on_forged": _word(wanted)},
        )
        return await call.done(tx, SenderPolicyItem(on_forged=_word(wanted)), changed)


async def list_held(call: Call[None, PageQuery]) -> HeldPage:
    inbox = await call.app.inboxes.get(call.workspace_id, call.ids["inbox_id"])
    page = await call.app.verdicts.held(
        call.workspace_id,
        inbox.id,
        inbox.retention_days,
        before=read_cursor(call.query.cursor),
        limit=call.query.limit,
    )
    items = [
        HeldItem(
            id=ids.type_id(ids.MESSAGE, one.id),
            state="refused" if one.state == "refused" else "waiting",
            recipient=one.recipient,
            received_at=one.received_at,
            from_address=one.from_address,
            from_name=one.from_name,
            subject=one.subject,
            size_bytes=one.size_bytes,
        )
        for one in page.items
    ]
    return HeldPage(items=items, next_cursor=write_cursor(page.next_before))


async def release_held(call: Call[None, None]) -> Answer:
    inbox = await call.app.inboxes.get(call.workspace_id, call.ids["inbox_id"])
    message_id = call.ids["message_id"]
    subject = ids.type_id(ids.MESSAGE, message_id)
    held = await held_message(call.app, call.workspace_id, message_id)
    async with call.app.database.transaction() as tx:
        await release(call.app, call.workspace_id, inbox.id, held, tx)
        change = Change(
            "message.release", subject, None, {"inbox": ids.type_id(ids.INBOX, inbox.id)}
        )
        answer = await call.done(tx, Released(id=subject), change)
    call.app.live.announced()
    return answer


async def held_message(app: "Application", workspace_id: UUID, message_id: UUID) -> Any:
    """The message with its bytes, wherever they lie: what `release` needs. Raises NotFound,
    BlobsAway."""
    rows = await app.verdicts.rows(workspace_id, [message_id])
    if not rows:
        raise NotFound("the inbox keeps no such message out")
    return rows[0]


async def release(
    app: "Application", workspace_id: UUID, inbox_id: UUID, held: Any, tx: Any
) -> None:
    """Let a message (of `held_message`) into the inbox that keeps it out. Raises NotFound."""
    gone = await app.verdicts.let_go(workspace_id, [(inbox_id, held["id"])], tx)
    if not gone:
        raise NotFound("the inbox keeps no such message out")
    await app.admitting.admit([held], gone, tx)


def _word(policy: Any) -> _Policy:
    words: dict[int, _Policy] = {0: "accept", 1: "tag", 2: "refuse"}
    return words[int(policy)]


ROUTES = (
    Route(
        "GET",
        "/v1/inboxes/{inbox_id:ibx}/sender-policy",
        get_policy,
        "getSenderPolicy",
        TAG,
        "Read what an inbox does with forged mail",
        scope.INBOXES_READ,
        answer=SenderPolicyItem,
    ),
    Route(
        "PUT",
        "/v1/inboxes/{inbox_id:ibx}/sender-policy",
        set_policy,
        "setSenderPolicy",
        TAG,
        "Set what an inbox does with forged mail",
        scope.INBOXES_WRITE,
        answer=SenderPolicyItem,
        body=SenderPolicy,
    ),
    Route(
        "GET",
        "/v1/inboxes/{inbox_id:ibx}/held",
        list_held,
        "listHeldMessages",
        TAG,
        "List the mail that an inbox keeps out",
        scope.INBOXES_READ,
        answer=HeldPage,
        query=PageQuery,
    ),
    Route(
        "POST",
        "/v1/inboxes/{inbox_id:ibx}/held/{message_id:msg}/release",
        release_held,
        "releaseHeldMessage",
        TAG,
        "Let a message in after all",
        scope.INBOXES_WRITE,
        answer=Released,
    ),
)
