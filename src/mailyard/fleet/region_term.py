"""A region that was taken over by another site knows it before it does harm.

Each take-over begins a new term: its number stands in the database that was promoted, and in that
of the site that did it. The lost site, should it come back, has the old number in its database; its
processes ask the neighbours when they start and every WATCH_S, and end when one of them knows of a
later term. A neighbour that cannot be asked says nothing: a site that is cut off works on, and what
it accepts then is the price of being reachable (docs/REGIONS.md).
"""

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from mailyard.access.region import Region, Regions
from mailyard.core.errors import ConfigurationError, MailyardError
from mailyard.net.guard import ANYWHERE
from mailyard.net.http import HttpClient
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("region")
WATCH_S = 15.0
_ASK_S = 5.0
PATH = "/health/regions"
# The operator's own file says where neighbours are: private networks and loopback are no surprise.
_LOG = structlog.get_logger(__name__)


class Terms(msgspec.Struct):
    """What a site says of regions: which one it is, and the latest term it knows of each."""

    region: str
    terms: dict[str, int]
    sites: dict[str, str] = {}


async def terms_of(database: Database, regions: Regions) -> Terms:
    """What this site knows."""
    rows = await database.fetch(_SQL.terms)
    return Terms(
        regions.own,
        {row["region"]: row["epoch"] for row in rows},
        {row["region"]: row["site"] for row in rows},
    )


class TermWatch:
    """Asks the neighbours whether this site is still the region of the settings."""

    def __init__(self, database: Database, regions: Regions) -> None:
        self._database = database
        self._regions = regions
        self._http = HttpClient(allowed=ANYWHERE)

    async def check(self) -> None:
        """Raises ConfigurationError when a neighbour knows of a later term."""
        own = await terms_of(self._database, self._regions)
        answers = await asyncio.gather(*map(self._ask, self._regions.others))
        overtaken(self._regions.own, own, [answer for answer in answers if answer is not None])

    async def run(self) -> None:
        """Check until it raises, or is cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                await self.check()
            except ConfigurationError:
                raise
            except MailyardError as error:  # our own database is away: others see to that
                _LOG.warning("region_not_checked", error=error.message)

    async def close(self) -> None:
        await self._http.close()

    async def _ask(self, region: Region) -> Terms | None:
        try:
            answer = await self._http.request("GET", region.api + PATH, total_s=_ASK_S)
            return msgspec.json.decode(answer.body, type=Terms) if answer.status == 200 else None
        except (MailyardError, msgspec.DecodeError) as error:
            _LOG.info("neighbour_does_not_answer", region=region.name, error=str(error))
            return None


def overtaken(region: str, own: Terms, others: Sequence[Terms]) -> None:
    """Raise ConfigurationError when one of `others` knows a later term of `region` than `own`."""
    mine = own.terms.get(region, 0)
    for other in others:
        if other.terms.get(region, 0) > mine:
            raise ConfigurationError(
                f"region {region} was taken over by site {other.sites.get(region, other.region)} "
                f"(term {other.terms[region]}, this database is of term {mine}): it is no longer "
                "the region; look for what it accepted meanwhile, then make it a standby of the "
                "one that is (docs/REGIONS.md)"
            )
