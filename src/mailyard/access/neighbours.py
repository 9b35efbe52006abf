"""What is at home in other regions, as the copies of their databases say that are kept here.

Asked only for what is unknown here: a key, a recipient. A copy that cannot be asked makes the
answer "not now" and never "unknown": mail for a neighbour is not refused for good because of it.
"""

import asyncio
import hmac
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import asyncpg

from mailyard.access.key import prefix_of
from mailyard.access.region import AtHomeElsewhere, Region, Regions
from mailyard.core.errors import MailyardError, Unavailable
from mailyard.storage.database import Database, DatabaseAddress
from mailyard.storage.queries import load
from mailyard.storage.written import Together

_ACCESS = load("access")
_SQL = load("region")
_CONNECTIONS = 2  # of a process to each copy: strangers are few
ASK_S = 3.0  # a copy that has not said by then how it stands is away
STREAMS, SILENT, PROMOTED, AWAY = "streams", "silent", "promoted", "away"
_PLUS = re.compile(r"\+[^@]*@")


@dataclass(frozen=True, slots=True)
class CopyState:
    """How the copy of a region's database stands. `word`: STREAMS; SILENT: it hears nothing of its
    primary; PROMOTED: it is no copy any more; AWAY: it does not answer, `why` says how."""

    region: str
    word: str
    unreplayed_bytes: int = 0
    last_commit_at: datetime | None = None
    why: str = ""


def _domain_of(address: str) -> str:
    return address.rpartition("@")[2]


class Neighbours:
    """The copies of other regions' databases, asked by one process. Opened when first needed."""

    def __init__(self, regions: Regions) -> None:
        self.regions = regions
        self._copies: dict[str, Database] = {}
        # One that hangs is asked by one question, however many want to know.
        self._asking = {
            region.name: Together[str, CopyState](self._ask) for region in self._with_copies()
        }

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

    async def copies(self) -> list[CopyState]:
        """How each copy stands that is kept here. Raises nothing; takes ASK_S at most."""
        return list(await asyncio.gather(*map(self.copy_of, self._with_copies())))

    async def copy_of(self, region: Region) -> CopyState:
        """How the copy of `region` stands. Raises nothing; takes ASK_S at most."""
        try:
            async with asyncio.timeout(ASK_S):
                return await self._asking[region.name](region.name)
        except TimeoutError:
            return CopyState(region.name, AWAY, why=f"has not answered in {ASK_S:.0f} s")
        except (MailyardError, asyncpg.PostgresError) as error:
            return CopyState(region.name, AWAY, why=str(error))

    async def _ask(self, names: Sequence[str]) -> Mapping[str, CopyState]:
        (name,) = names
        copy = await self._copy(self.regions.find(name))
        row = await copy.fetchrow(_SQL.copy_state)
        assert row is not None, "a row of the server's own figures"
        word = (STREAMS if row["streams"] else SILENT) if row["follows"] else PROMOTED
        return {name: CopyState(name, word, row["unreplayed_bytes"], row["last_commit_at"])}

    async def close(self) -> None:
        for copy in self._copies.values():
            with suppress(TimeoutError):  # one that hangs is let go
                async with asyncio.timeout(ASK_S):
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
