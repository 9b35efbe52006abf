"""Who is in a list, as a preflight wants to know it: lacking variables, trap-like addresses, age.

Everybody is looked at, in the database and within LIST_S; what was not done by then is said so.
"""

import asyncio
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from uuid import UUID

import asyncpg

from mailyard.campaigns.audience import Audience, Audiences
from mailyard.campaigns.behaviour import CLICKED, OPENED
from mailyard.campaigns.filter.tree import And, Compare, DaysFromNow, Did, Not, Operator, Or, Own
from mailyard.campaigns.preflight import LIST_DEAD, LIST_STALE, Lack, ListFacts
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("preflight")

LIST_S = 20.0
EXAMPLES = 5

Failure = Callable[[asyncpg.Record], str]
"""Why the mail for a contact cannot be written; empty when it can."""


@cache
def trap_words() -> tuple[list[str], list[str], list[str]]:
    """Local parts, domains and top-level domains of `traps.toml`."""
    table = tomllib.loads(files("mailyard.campaigns").joinpath("traps.toml").read_text("utf-8"))
    return table["locals"], table["domains"], table["tops"]


async def check_silence(audiences: Audiences, audience: Audience) -> tuple[int, int]:
    """How many of an audience were added longer ago than LIST_STALE, and how many of those never
    opened or clicked a mail; both about, from samples."""
    long_ago = Compare(Own.ADDED, Operator.BELOW, (DaysFromNow(-LIST_STALE.days),))
    silent = Not(Or((Did(OPENED), Did(CLICKED))))
    known_long, never = [
        await audiences.estimate(replace(audience, tree=And((audience.tree, long_ago, *more))))
        for more in ((), (silent,))
    ]
    return known_long.contacts, min(never.contacts, known_long.contacts)


async def check_list(
    database: Database,
    workspace_id: UUID,
    list_id: UUID,
    campaign_id: UUID,
    variables: Sequence[str],
    failure: Failure,
    now: datetime,
) -> ListFacts:
    """The facts of a list for a campaign whose template uses `variables`."""
    try:
        async with asyncio.timeout(LIST_S):
            return await _check(
                database, workspace_id, list_id, campaign_id, variables, failure, now
            )
    except (TimeoutError, Unavailable):
        return ListFacts(whole=False)


async def _check(
    database: Database,
    workspace_id: UUID,
    list_id: UUID,
    campaign_id: UUID,
    variables: Sequence[str],
    failure: Failure,
    now: datetime,
) -> ListFacts:
    traps = trap_words()
    row = await database.fetchrow(
        _SQL.count_list, workspace_id, list_id, now - LIST_STALE, now - LIST_DEAD, *traps
    )
    assert row is not None, "an aggregate has a row"
    sent = await database.fetchval(_SQL.last_send, workspace_id, list_id, campaign_id)
    examples: Sequence[asyncpg.Record] = ()
    if row["traps"]:
        examples = await database.fetch(_SQL.example_traps, workspace_id, list_id, *traps, EXAMPLES)
    return ListFacts(
        members=row["members"],
        lacks=await _lacks(database, workspace_id, list_id, variables, failure),
        traps=row["traps"],
        trap_examples=tuple(one["address"] for one in examples),
        stale=row["stale"] if sent is None or sent < now - LIST_STALE else 0,
        dead=row["dead"] if sent is None or sent < now - LIST_DEAD else 0,
    )


async def _lacks(
    database: Database,
    workspace_id: UUID,
    list_id: UUID,
    variables: Sequence[str],
    failure: Failure,
) -> tuple[Lack, ...]:
    """A contact that lacks a variable says whether the template does without it."""
    if not variables:
        return ()
    found = await database.fetch(_SQL.count_lacks, workspace_id, list_id, list(variables))
    wanted = [row["example"] for row in found]
    rows = await database.fetch(_SQL.contacts_to_try, workspace_id, wanted)
    by_id = {row["id"]: row for row in rows}
    return tuple(
        Lack(
            one["name"],
            one["contacts"],
            by_id[one["example"]]["address"],
            failure(by_id[one["example"]]),
        )
        for one in found
        if one["example"] in by_id
    )
