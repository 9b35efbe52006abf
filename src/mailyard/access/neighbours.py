"""What is at home in other regions, as the copies of their databases say that are kept here.

Asked only for what is unknown here: a key, a recipient. A copy that cannot be asked makes the
answer "not now" and never "unknown": mail for a neighbour is not refused for good because of it.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import asyncpg

from mailyard.access.key import prefix_of
from mailyard.access.region import AtHomeElsewhere, Region, Regions
from mailyard.core.errors import Unavailable
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.queries import load

_ACCESS = load("access")
_SQL = load("region")
_CONNECTIONS = 2  # of a process to each copy: strangers are few
_PLUS = re.compile(r"\+[^@]*@")


@dataclass(frozen=True, slots=True)
class CopyState:
    """How the copy of a region's database stands. `behind_s`: since the last commit that it has;
    large also where nobody commits."""

    region: str
    follows: bool
    streams: bool
    unreplayed_bytes: int
    last_commit_at: datetime | None
    position: str
    behind_s: float | None


def _domain_of(address: str) -> str:
    return address.rpartition("@")[2]


class Neighbours:
    """The copies of other regions' databases, asked by one process. Opened when first needed."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self._copies: dict[str, Database] = {}

    async def redirect_key(self, text: str) -> None:
        """Raises AtHomeElsewhere when `text` is a good API key of another region; Unavailable."""
        prefix = prefix_of(text)
        if prefix is None:
            return
        hashed = sha256(text.encode()).digest()
        for region in self._with_copies():
            copy = await self._copy(region)
            row = await copy.fetchrow(_ACCESS.find_key, prefix)
            if row is not None and hmac.compare_digest(hashed, row["secret_hash"]):
                raise AtHomeElsewhere(region, "this API key")

    async def homes_of(self, addresses: Sequence[str]) -> dict[str, Region]:
        """Those of the normalised `addresses` that another region takes mail for; Unavailable."""
        found = {
            address: region
            for address in addresses
            for region in self.regions.others
            if _domain_of(address) in region.domains
        }
        for region in self._with_copies():
            unknown = [address for address in addresses if address not in found]
            if not unknown:
                break
            bases = [_PLUS.sub("@", address) for address in unknown]
            domains = [_domain_of(address) for address in unknown]
            copy = await self._copy(region)
            rows = await copy.fetch(_SQL.homes_of, unknown, bases, domains)
            found |= {row["address"]: region for row in rows}
        return found

    async def state_of(self, region: Region) -> CopyState:
        """How its copy stands. Raises Unavailable."""
        copy = await self._copy(region)
        row = await copy.fetchrow(_SQL.copy_state)
        assert row is not None, "a row of the server's own figures"
        last = row["last_commit_at"]
        return CopyState(
            region.name,
            row["follows"],
            row["streams"],
            row["unreplayed_bytes"],
            last,
            row["position"],
            None if last is None else (row["now"] - last).total_seconds(),
        )

    async def close(self) -> None:
        for copy in self._copies.values():
            await copy.close()
        self._copies.clear()

    def _with_copies(self) -> list[Region]:
        return [region for region in self.regions.others if region.standby]

    async def _copy(self, region: Region) -> Database:
        copy = self._copies.get(region.name)
        if copy is None:
            address = DatabaseAddress(region.standby, region.standby, _CONNECTIONS)
            copy = Database(address)
            try:
                await copy.open()
            except (Unavailable, asyncpg.PostgresError) as error:
                raise Unavailable(f"the copy of region {region.name} is away: {error}") from error
            other = self._copies.setdefault(region.name, copy)
            if other is not copy:  # two were first
                await copy.close()
                copy = other
        return copy
