"""Plans: what a workspace may use and what that costs a month, as the operator writes it down.

    sign_up = "free"                   # what whoever signs up gets
    currency = "EUR"
    soft = 0.8                         # from this share on, the owners are told

    [plan.free]
    inboxes = 10                       # that live at once
    messages_per_day = 200             # received
    sends_per_day = 50                 # recipients
    requests_per_s = 5.0               # to the API, by all keys together
    retention_days = 7                 # the longest life of an inbox
    live_connections = 5               # event streams and waits, of one API process

    [plan.team]
    title = "Team"
    price_per_month = 49.0
    inboxes = 1000

A number that is left out is no limit. Without a file there is no plan and no limit, and nothing is
asked on any way. A workspace has the name of its plan; with no name, as the first one and those
that an operator makes, it has no limits. A name that is no longer in the file counts as the plan
of those who sign up, so that a renamed plan opens nothing.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from mailyard.access.audit import Actor, Audit
from mailyard.cache.kind import PLAN
from mailyard.cache.layered import LayeredCache
from mailyard.core import ids
from mailyard.core.errors import ConfigurationError, InvalidInput, NotFound
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("usage")

FILE_BYTES_MAX = 256 * 1024
_KEY = _TAG = "plan"

INBOXES = "inboxes"
MESSAGES = "messages"
SENDS = "sends"

_Count = Annotated[int, Meta(ge=0, le=10**12)]
_Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one plan; None: no such limit. The price is in the book's currency."""

    title: Annotated[str, Meta(max_length=60)] = ""
    price_per_month: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    inboxes: _Count | None = None
    messages_per_day: _Count | None = None
    sends_per_day: _Count | None = None
    requests_per_s: Annotated[float, Meta(ge=0.1, le=1e6)] | None = None
    retention_days: Annotated[int, Meta(ge=1, le=3650)] | None = None
    live_connections: _Count | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    plan: dict[_Name, Plan]
    sign_up: str = ""
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "EUR"
    soft: Annotated[float, Meta(gt=0, le=1)] = 0.8


NO_PLAN = Plan()


@dataclass(frozen=True, slots=True)
class PlanBook:
    """All plans. `sign_up`: the name of the plan that whoever signs up gets; "": none."""

    plans: Mapping[str, Plan]
    sign_up: str = ""
    currency: str = "EUR"
    soft: float = 0.8

    def plan(self, name: str) -> Plan:
        """The plan of a workspace that has this name of one."""
        if not name:
            return NO_PLAN
        return self.plans.get(name) or self.plans.get(self.sign_up, NO_PLAN)


NO_PLANS = PlanBook({})


def read_plans(file: str, text: str) -> PlanBook:
    """The plans of a file. Raises ConfigurationError naming the file and the key."""
    if len(text.encode()) > FILE_BYTES_MAX:
        raise ConfigurationError(f"{file} is longer than {FILE_BYTES_MAX} bytes")
    try:
        found = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{file}: {error}") from None
    if not found.plan:
        raise ConfigurationError(f"{file} has no [plan.…]")
    sign_up = found.sign_up or next(iter(found.plan))
    if sign_up not in found.plan:
        raise ConfigurationError(
            f"{file}: sign_up is {sign_up!r}; it is one of {', '.join(found.plan)}"
        )
    return PlanBook(found.plan, sign_up, found.currency, found.soft)


class Plans:
    """Which workspace has which plan. The limits themselves are in the book, in memory."""

    def __init__(
        self,
        *,
        database: Database,
        audit: Audit,
        book: PlanBook = NO_PLANS,
        cache: LayeredCache | None = None,
    ) -> None:
        self._database = database
        self._audit = audit
        self.book = book
        self._cache = cache

    @property
    def any(self) -> bool:
        """Whether there are plans at all: without them nobody has to ask for anything."""
        return bool(self.book.plans)

    def known(self, workspace_id: UUID) -> Plan | None:
        """The plan, if nobody need be asked for it."""
        name = None if self._cache is None else self._cache.peek(PLAN, workspace_id, _KEY)
        return None if name is None else self.book.plan(name)

    async def of(self, workspace_id: UUID, tx: Connection | None = None) -> Plan:
        """The workspace's plan. Within `tx` no other connection is asked for."""
        if not self.any:
            return NO_PLAN
        return self.known(workspace_id) or self.book.plan(await self._name(workspace_id, tx))

    async def name_of(self, workspace_id: UUID) -> str:
        """The name of the plan that counts for the workspace; empty without one."""
        name = await self._name(workspace_id, None)
        if not self.any or not name:
            return ""
        return name if name in self.book.plans else self.book.sign_up

    async def assign(self, workspace_id: UUID, name: str, *, actor: Actor) -> None:
        """Give a workspace a plan, "" for none. In force in every process when this returns.

        Raises InvalidInput for an unknown plan, NotFound.
        """
        if name and name not in self.book.plans:
            known = ", ".join(self.book.plans) or "none: MAILYARD_PLANS_FILE names no file"
            raise InvalidInput(f"no such plan; there are {known}", field="plan")
        async with self._database.transaction() as tx:
            row = await self._database.fetchrow(_SQL.set_plan, workspace_id, name, tx=tx)
            if row is None:
                raise NotFound("no such workspace")
            await self._audit.record(
                Actor(actor.kind, actor.name, workspace_id),
                "workspace.plan",
                ids.type_id(ids.WORKSPACE, workspace_id),
                {"plan": row["plan_before"]},
                {"plan": name},
                tx,
            )
            if self._cache is not None:
                await self._cache.change(workspace_id, [_TAG], tx)
        if self._cache is not None:
            self._cache.changed(workspace_id, [_TAG])
            await self._cache.everybody_has_heard()

    async def _name(self, workspace_id: UUID, tx: Connection | None) -> str:
        async def read() -> str:
            return str(await self._database.fetchval(_SQL.plan_of, workspace_id, tx=tx) or "")

        if self._cache is None or tx is not None:
            return await read()
        return await self._cache.get_or_make(PLAN, workspace_id, _KEY, read, [_TAG], shape=str)
