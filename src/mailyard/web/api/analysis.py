"""Analysis: what is asked of a message and what came of it; when mail is analysed; usage."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from msgspec import UNSET, Meta, UnsetType, field

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.analysis.task import ASPECTS, Aspect, ask_of
from mailyard.core import ids
from mailyard.protocol.meaning.finding import Findings
from mailyard.web.api.page import Input, Moment, Output
from mailyard.web.api.route import Answer, Call, Route

if TYPE_CHECKING:
    from mailyard.analysis.analyses import Analysis
    from mailyard.analysis.policy import Policy

TAG = "Analysis"
MICROS = 1_000_000

_Fields = Annotated[
    dict[str, Any],
    Meta(
        description="A JSON Schema of your own fields: an object of properties with type, enum, "
        "items, required, and bounds of length, number and value.",
        examples=[{"type": "object", "properties": {"total": {"type": ["string", "null"]}}}],
    ),
]
_Aspects = Annotated[list[Aspect], Meta(max_length=len(ASPECTS))]
_Money = Annotated[
    float, Meta(ge=0, le=1e9, description="In the money that the models' prices are in.")
]


class AnalysisAsk(Input):
    """What to ask of a message."""

    aspects: _Aspects = field(default_factory=lambda: list(ASPECTS))
    fields: _Fields | None = None


class AnalysisItem(Output):
    """What was asked of a message, and what came of it."""

    task: Annotated[str, Meta(description="Names the ask: the same words are the same task.")]
    state: Annotated[str, Meta(description="`queued` or `done`.")]
    aspects: list[Aspect]
    fields: _Fields | None
    answer: Annotated[
        dict[str, Any] | None,
        Meta(
            description="By aspect: `category`, `urgency`, `sentiment` as {value, quote}; "
            "`summary`; `phishing` as a list of {kind, quote}; `suggested_answer`; `fields` of "
            "your schema, or null. A quote stands in the mail letter by letter; no text names a "
            "link, an address, a number or a sum that is not in the mail."
        ),
    ]
    model: Annotated[str, Meta(description="Who answered: a model's name, or `rules`.")]
    kept: Annotated[bool, Meta(description="Answered before, at no cost.")]
    withheld: Annotated[list[str], Meta(description="What was taken out of the answer, and why.")]
    notes: Annotated[list[str], Meta(description="Why other models did not answer.")]
    input_tokens: int
    output_tokens: int
    cost: _Money
    asked_at: Moment
    done_at: Moment | None


class AnalysisList(Output):
    """What was asked of a message, newest first."""

    items: list[AnalysisItem]


class MeaningTexts(Output):
    """The texts that evidence points into."""

    subject: str
    text: str
    html: Annotated[str, Meta(description="What the HTML shows, as text.")]


class MeaningDetail(Output):
    """What rules find in a message, with the texts that the evidence points into."""

    meaning: Findings
    texts: MeaningTexts


class AnalysisPolicy(Input):
    """When mail is analysed, what is asked then, and what a day may use."""

    on_arrival: Annotated[
        bool, Meta(description="Mail of every inbox that does not say otherwise.")
    ] = False
    aspects: _Aspects = field(default_factory=lambda: list(ASPECTS))
    fields: _Fields | None = None
    day_tokens: (
        Annotated[int, Meta(ge=0, le=2**53, description="Tokens a day (UTC); null: no limit.")]
        | None
    ) = None
    day_money: (
        Annotated[
            float,
            Meta(ge=0, le=1e9, description="Money a day, as the models' prices; null: no limit."),
        ]
        | None
    ) = None


class AnalysisPolicyItem(Output):
    """When mail is analysed, what is asked then, and what a day may use."""

    on_arrival: bool
    aspects: list[Aspect]
    fields: _Fields | None
    day_tokens: int | None
    day_money: float | None


class InboxAnalysis(Input):
    """Whether an inbox's mail is analysed on arrival."""

    on_arrival: Annotated[bool | UnsetType | None, Meta(description="Null: as the workspace.")] = (
        UNSET
    )


class InboxAnalysisItem(Output):
    """Whether an inbox's mail is analysed on arrival."""

    on_arrival: Annotated[bool | None, Meta(description="Null: as the workspace.")]


class AnalysisDay(Output):
    """What a day (UTC) has used. A call under way counts with the most that it may use."""

    day: Annotated[str, Meta(examples=["2026-01-31"])]
    tokens: int
    money: float
    calls: int
    failures: int
    kept: Annotated[int, Meta(description="Answers that were there already.")]


class AnalysisUsage(Output):
    """The last days that used anything, newest first."""

    items: list[AnalysisDay]


def item_of(one: "Analysis") -> AnalysisItem:
    """An analysis as the API gives it."""
    outcome = one.outcome
    return AnalysisItem(
        task=one.task.hex(),
        state=one.state,
        aspects=list(one.ask.aspects),
        fields=one.ask.fields_schema,
        answer=None if outcome is None else outcome.answer,
        model="" if outcome is None else outcome.model,
        kept=outcome is not None and outcome.kept,
        withheld=[] if outcome is None else list(outcome.withheld),
        notes=[] if outcome is None else list(outcome.notes),
        input_tokens=0 if outcome is None else outcome.input_tokens,
        output_tokens=0 if outcome is None else outcome.output_tokens,
        cost=0.0 if outcome is None else outcome.micros / MICROS,
        asked_at=one.asked_at,
        done_at=one.done_at,
    )


def policy_item(policy: "Policy") -> AnalysisPolicyItem:
    """A policy as the API gives it."""
    return AnalysisPolicyItem(
        on_arrival=policy.on_arrival,
        aspects=list(policy.ask.aspects),
        fields=policy.ask.fields_schema,
        day_tokens=policy.day_tokens,
        day_money=None if policy.day_micros is None else policy.day_micros / MICROS,
    )


def told(policy: "Policy") -> dict[str, Any]:
    """A policy as the audit log keeps it."""
    item = policy_item(policy)
    return {name: getattr(item, name) for name in item.__struct_fields__}


async def _seen(call: Call[Any, Any]) -> tuple[UUID, bytes]:
    """The message of the path, if it may be seen. Raises NotFound."""
    message_id = call.ids["message_id"]
    return message_id, await call.app.messages.raw(call.workspace_id, message_id)


async def get_meaning(call: Call[None, None]) -> MeaningDetail:
    from mailyard.protocol.meaning.letter import read_letter

    message_id, raw = await _seen(call)
    letter = read_letter(raw)
    return MeaningDetail(
        meaning=await call.app.meanings.of(call.workspace_id, message_id),
        texts=MeaningTexts(subject=letter.subject, text=letter.text, html=letter.html),
    )


async def list_analyses(call: Call[None, None]) -> AnalysisList:
    message_id, _ = await _seen(call)
    found = await call.app.analyses.list(call.workspace_id, message_id)
    return AnalysisList(items=[item_of(one) for one in found])


async def ask_analysis(call: Call[AnalysisAsk, None]) -> Answer:
    ask = ask_of(call.body.aspects, call.body.fields)
    message_id, _ = await _seen(call)
    subject = ids.type_id(ids.MESSAGE, message_id)
    async with call.app.database.transaction() as tx:
        found = await call.app.analyses.request(call.workspace_id, message_id, ask, tx)
        asked = Change("analysis.ask", subject, None, {"task": found.task.hex()})
        answer = await call.done(tx, item_of(found), asked)
    call.app.analyses.announced()
    return answer


async def get_policy(call: Call[None, None]) -> AnalysisPolicyItem:
    return policy_item(await call.app.analysis_policies.get(call.workspace_id))


async def set_policy(call: Call[AnalysisPolicy, None]) -> Answer:
    body, policies = call.body, call.app.analysis_policies
    money = body.day_money
    async with call.app.database.transaction() as tx:
        before = await policies.get(call.workspace_id, tx)
        after = await policies.set(
            call.workspace_id,
            on_arrival=body.on_arrival,
            aspects=body.aspects,
            fields=body.fields,
            day_tokens=body.day_tokens,
            day_micros=None if money is None else round(money * MICROS),
            tx=tx,
        )
        changed = Change("analysis.policy", "analysis", told(before), told(after))
        return await call.done(tx, policy_item(after), changed)


async def get_usage(call: Call[None, None]) -> AnalysisUsage:
    spent = await call.app.analysis_policies.spent(call.workspace_id)
    return AnalysisUsage(
        items=[
            AnalysisDay(
                day=one.day.isoformat(),
                tokens=one.tokens,
                money=one.micros / MICROS,
                calls=one.calls,
                failures=one.failures,
                kept=one.kept,
            )
            for one in spent
        ]
    )


async def get_inbox_analysis(call: Call[None, None]) -> InboxAnalysisItem:
    said = await call.app.analysis_policies.of_inbox(call.workspace_id, call.ids["inbox_id"])
    return InboxAnalysisItem(on_arrival=said)


async def set_inbox_analysis(call: Call[InboxAnalysis, None]) -> Answer:
    inbox_id, policies = call.ids["inbox_id"], call.app.analysis_policies
    before = await policies.of_inbox(call.workspace_id, inbox_id)
    after = before if call.body.on_arrival is UNSET else call.body.on_arrival
    async with call.app.database.transaction() as tx:
        await policies.set_inbox(call.workspace_id, inbox_id, after, tx)
        subject = ids.type_id(ids.INBOX, inbox_id)
        changed = Change("analysis.inbox", subject, {"on_arrival": before}, {"on_arrival": after})
        return await call.done(tx, InboxAnalysisItem(on_arrival=after), changed)


ROUTES = (
    Route(
        "GET",
        "/v1/messages/{message_id:msg}/meaning",
        get_meaning,
        "getMeaning",
        TAG,
        "Read what rules find in a message, and the texts that it points into",
        scope.INBOXES_READ,
        answer=MeaningDetail,
        description="A message that is read, or waited for, carries the same as `meaning`.",
    ),
    Route(
        "GET",
        "/v1/messages/{message_id:msg}/analyses",
        list_analyses,
        "listAnalyses",
        TAG,
        "List what was asked of a message",
        scope.INBOXES_READ,
        answer=AnalysisList,
    ),
    Route(
        "POST",
        "/v1/messages/{message_id:msg}/analyses",
        ask_analysis,
        "askAnalysis",
        TAG,
        "Ask something of a message",
        scope.ANALYSIS_WRITE,
        answer=AnalysisItem,
        body=AnalysisAsk,
        description="Without models rules answer at once. Else it is `queued`: `analysis.done` in "
        "the event stream says when it is done, and the list then has it. The same ask again gives "
        "what is there; where a model failed it is asked again.",
    ),
    Route(
        "GET",
        "/v1/analysis/policy",
        get_policy,
        "getAnalysisPolicy",
        TAG,
        "Read when mail is analysed and what a day may use",
        scope.ANALYSIS_READ,
        answer=AnalysisPolicyItem,
    ),
    Route(
        "PUT",
        "/v1/analysis/policy",
        set_policy,
        "setAnalysisPolicy",
        TAG,
        "Set when mail is analysed and what a day may use",
        scope.ANALYSIS_WRITE,
        answer=AnalysisPolicyItem,
        body=AnalysisPolicy,
    ),
    Route(
        "GET",
        "/v1/analysis/usage",
        get_usage,
        "getAnalysisUsage",
        TAG,
        "Read what the last days used",
        scope.ANALYSIS_READ,
        answer=AnalysisUsage,
    ),
    Route(
        "GET",
        "/v1/inboxes/{inbox_id:ibx}/analysis",
        get_inbox_analysis,
        "getInboxAnalysis",
        TAG,
        "Read whether an inbox's mail is analysed on arrival",
        scope.ANALYSIS_READ,
        answer=InboxAnalysisItem,
    ),
    Route(
        "PUT",
        "/v1/inboxes/{inbox_id:ibx}/analysis",
        set_inbox_analysis,
        "setInboxAnalysis",
        TAG,
        "Set whether an inbox's mail is analysed on arrival",
        scope.ANALYSIS_WRITE,
        answer=InboxAnalysisItem,
        body=InboxAnalysis,
    ),
)
