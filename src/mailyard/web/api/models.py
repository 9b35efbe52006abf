"""Models: the language models that a workspace has, in the order in which they are asked."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType, to_builtins

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.analysis.book import (
    KEY_CHARACTERS,
    KINDS,
    ModelChange,
    ModelEntry,
    ModelSettings,
    NewModel,
)
from mailyard.core import ids
from mailyard.web.api.analysis import MICROS, TAG
from mailyard.web.api.page import Input, ModelId, Moment, Output
from mailyard.web.api.route import Answer, Call, Route

_Kind = Annotated[
    Literal["openai", "anthropic"],
    Meta(description="The protocol: `openai` is spoken by many servers, one's own too."),
]
_Settings = Annotated[
    dict[str, Any],
    Meta(max_length=20, description="See ModelSettings.", examples=[{"model": "small-model"}]),
]
_Key = Annotated[
    str, Meta(max_length=KEY_CHARACTERS, description="It is never shown again; empty: none.")
]
_Place = Annotated[int, Meta(ge=0, le=10_000, description="The lowest is asked first.")]


class NewModelBody(Input):
    """A model to ask."""

    name: Annotated[str, Meta(min_length=1, max_length=64, examples=["small"])]
    kind: _Kind
    settings: _Settings
    key: _Key = ""
    place: _Place = 100


class ChangedModel(Input):
    """What to change: settings as a whole."""

    settings: _Settings | UnsetType = UNSET
    key: _Key | UnsetType = UNSET
    place: _Place | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET


class ModelTest(Input):
    """A mail to try a model with."""

    subject: Annotated[str, Meta(max_length=200)] = "Your invoice 4711"
    text: Annotated[str, Meta(max_length=5_000)] = (
        "Dear customer, your invoice 4711 is due on 31 March 2026. Kind regards"
    )


class ModelItem(Output):
    """A model. It is asked in its place, unless it is off or rests."""

    id: ModelId
    name: str
    kind: _Kind
    place: _Place
    settings: ModelSettings
    has_key: bool
    enabled: bool
    resting_until: Annotated[
        Moment | None, Meta(description="It failed too often, or said so: until then it rests.")
    ]
    why: str
    created_at: Moment


class ModelList(Output):
    """Models in the order in which they are asked. The rules answer when none does."""

    items: list[ModelItem]


class ModelTestResult(Output):
    """What a model answered, behind the walls; or `why` it did not."""

    answer: dict[str, Any] | None
    why: Annotated[str, Meta(description="Empty: it answered.")]
    withheld: list[str]
    input_tokens: int
    output_tokens: int
    cost: float


def model_item(one: ModelEntry) -> ModelItem:
    """A model as the API gives it."""
    return ModelItem(
        id=ids.type_id(ids.MODEL, one.id),
        name=one.name,
        kind="anthropic" if one.kind == "anthropic" else "openai",
        place=one.place,
        settings=one.settings,
        has_key=one.has_key,
        enabled=one.enabled,
        resting_until=one.resting_until,
        why=one.why,
        created_at=ids.time_of(one.id),
    )


def told(one: ModelEntry) -> dict[str, Any]:
    """A model as the audit log keeps it: of its key whether there is one."""
    return {
        "name": one.name,
        "kind": one.kind,
        "place": one.place,
        "settings": to_builtins(one.settings),
        "has_key": one.has_key,
        "enabled": one.enabled,
    }


def change_of(action: str, one: ModelEntry, before: Any, after: Any) -> Change:
    """An entry of the audit log."""
    return Change(action, ids.type_id(ids.MODEL, one.id), before, after)


async def create_model(call: Call[NewModelBody, None]) -> Answer:
    body = call.body
    wanted = NewModel(body.name, body.kind, body.settings, body.key, body.place)
    async with call.app.database.transaction() as tx:
        one = await call.app.models.create(call.workspace_id, wanted, tx)
        made = change_of("model.create", one, None, told(one))
        return await call.done(tx, model_item(one), made)


async def list_models(call: Call[None, None]) -> ModelList:
    found = await call.app.models.list(call.workspace_id)
    return ModelList(items=[model_item(one) for one in found])


async def get_model(call: Call[None, None]) -> ModelItem:
    return model_item(await call.app.models.get(call.workspace_id, call.ids["model_id"]))


async def change_model(call: Call[ChangedModel, None]) -> Answer:
    body, model_id = call.body, call.ids["model_id"]
    change = ModelChange(
        settings=None if body.settings is UNSET else body.settings,
        key=None if body.key is UNSET else body.key,
        place=None if body.place is UNSET else body.place,
        enabled=None if body.enabled is UNSET else body.enabled,
    )
    async with call.app.database.transaction() as tx:
        before = await call.app.models.get(call.workspace_id, model_id, tx)
        after = await call.app.models.change(call.workspace_id, model_id, change, tx)
        changed = change_of("model.change", after, told(before), told(after))
        return await call.done(tx, model_item(after), changed)


async def remove_model(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.models.remove(call.workspace_id, call.ids["model_id"], tx)
        return await call.done(tx, None, change_of("model.remove", one, told(one), None))


async def test_model(call: Call[ModelTest, None]) -> Answer:
    from mailyard.analysis.model import ModelFailure
    from mailyard.protocol.meaning.letter import Letter

    model = await call.app.models.open(call.workspace_id, call.ids["model_id"])
    letter = Letter(subject=call.body.subject, text=call.body.text)
    try:
        outcome = await call.app.analyst.ask_once(call.workspace_id, model, letter)
        result = ModelTestResult(
            answer=outcome.answer,
            why="",
            withheld=list(outcome.withheld),
            input_tokens=outcome.input_tokens,
            output_tokens=outcome.output_tokens,
            cost=outcome.micros / MICROS,
        )
    except ModelFailure as error:
        result = ModelTestResult(None, error.why, [], 0, 0, 0.0)
    tried = change_of("model.test", model.entry, None, {"why": result.why, "cost": result.cost})
    async with call.app.database.transaction() as tx:
        return await call.done(tx, result, tried)


ROUTES = (
    Route(
        "POST",
        "/v1/analysis/models",
        create_model,
        "createModel",
        TAG,
        "Add a model",
        scope.ANALYSIS_WRITE,
        status=201,
        answer=ModelItem,
        body=NewModelBody,
        errors=(409,),
        description=f"Without `base_url`: {KINDS['openai']}, {KINDS['anthropic']}.",
    ),
    Route(
        "GET",
        "/v1/analysis/models",
        list_models,
        "listModels",
        TAG,
        "List models in the order in which they are asked",
        scope.ANALYSIS_READ,
        answer=ModelList,
    ),
    Route(
        "GET",
        "/v1/analysis/models/{model_id:mdl}",
        get_model,
        "getModel",
        TAG,
        "Read a model",
        scope.ANALYSIS_READ,
        answer=ModelItem,
    ),
    Route(
        "PATCH",
        "/v1/analysis/models/{model_id:mdl}",
        change_model,
        "changeModel",
        TAG,
        "Change a model, switch it off and on",
        scope.ANALYSIS_WRITE,
        answer=ModelItem,
        body=ChangedModel,
        errors=(409,),
        description="A model that rests is asked again.",
    ),
    Route(
        "DELETE",
        "/v1/analysis/models/{model_id:mdl}",
        remove_model,
        "removeModel",
        TAG,
        "Remove a model and its key",
        scope.ANALYSIS_WRITE,
        status=204,
    ),
    Route(
        "POST",
        "/v1/analysis/models/{model_id:mdl}/test",
        test_model,
        "testModel",
        TAG,
        "Ask a model about one mail now",
        scope.ANALYSIS_WRITE,
        answer=ModelTestResult,
        body=ModelTest,
        idempotency="none",
        description="Counts in the day's budget.",
    ),
)
