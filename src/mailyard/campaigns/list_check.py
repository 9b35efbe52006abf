"""Who is in a list, as a preflight wants to know it: lacking variables, trap-like addresses, age.

Everybody is looked at, in the database and within LIST_S; what was not done by then is said so. For
whom the mail cannot be written is found by trying it (`list_kinds.py`).
"""

import asyncio
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from importlib.resources import files
from uuid import UUID

import asyncpg

from mailyard.campaigns.audience import Audience, Audiences
from mailyard.campaigns.behaviour import CLICKED, OPENED
from mailyard.campaigns.filter.tree import And, Compare, DaysFromNow, Did, Not, Operator, Or, Own
from mailyard.campaigns.list_kinds import KINDS_TRIED, Asked, Kind, Tried, Tries, try_kinds
from mailyard.campaigns.preflight import LIST_DEAD, LIST_STALE, ListFacts
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("preflight")

LIST_S = 20.0
EXAMPLES = 5


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
    asked: Asked,
    tries: Tries,
    now: datetime,
) -> ListFacts:
    """The facts of a list for a campaign whose template asks `asked` of contacts."""
    try:
        async with asyncio.timeout(LIST_S):
            return await _check(database, workspace_id, list_id, campaign_id, asked, tries, now)
    except (TimeoutError, Unavailable):
        return ListFacts(whole=False)


async def _check(
    database: Database,
    workspace_id: UUID,
    list_id: UUID,
    campaign_id: UUID,
    asked: Asked,
    tries: Tries,
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
    tried = await _tried(database, workspace_id, list_id, asked, row["members"], tries)
    return ListFacts(
        members=row["members"],
        lacks=tried.lacks,
        untried=tried.untried,
        traps=row["traps"],
        trap_examples=tuple(one["address"] for one in examples),
        stale=row["stale"] if sent is None or sent < now - LIST_STALE else 0,
        dead=row["dead"] if sent is None or sent < now - LIST_DEAD else 0,
    )


async def _tried(
    database: Database,
    workspace_id: UUID,
    list_id: UUID,
    asked: Asked,
    members: int,
    tries: Tries,
) -> Tried:
    """The mail, tried on every kind of contact in the list."""
    lacking = await database.fetch(_SQL.count_lacks, workspace_id, list_id, asked.fields)
    kinds = await database.fetch(
        _SQL.kinds_of_list, workspace_id, list_id, asked.fields, asked.deciding, KINDS_TRIED
    )
    return await try_kinds(
        database,
        workspace_id,
        asked,
        [Kind(row["contacts"], row["example"]) for row in kinds],
        [(row["name"], row["contacts"]) for row in lacking],
        members,
        tries,
    )
