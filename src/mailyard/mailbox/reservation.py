"""Addresses that a workspace holds: nobody else has an inbox there, after its own has ended too."""

from collections.abc import Sequence
from uuid import UUID

from mailyard.core.errors import Conflict, InvalidInput
from mailyard.protocol.address import normalise
from mailyard.storage.database import Connection, Database
from mailyard.storage.names import ADDRESS, Names
from mailyard.storage.queries import load

_SQL = load("receiving_domain")
RESERVED_MAX = 100_000  # of one workspace


class Reservations:
    """The reserved addresses of all workspaces. The caller writes the audit rows."""

    def __init__(
        self, *, database: Database, domains: Sequence[str], names: Names | None = None
    ) -> None:
        """`names`: where there are several database clusters."""
        self._names = names
        self._database = database
        self._domains = frozenset(domain.lower() for domain in domains)

    async def reserve(
        self, workspace_id: UUID, addresses: Sequence[str], tx: Connection
    ) -> list[str]:
        """Hold all of `addresses`, normalised. Under the domains that all workspaces share: others
        belong to one workspace anyway. Raises InvalidInput, Conflict."""
        wanted = []
        for place, text in enumerate(addresses):
            path = f"addresses.{place}"
            try:
                address = normalise(text)
            except InvalidInput as error:
                raise InvalidInput(error.message, field=path) from None
            if address.rpartition("@")[2] not in self._domains:
                shared = ", ".join(sorted(self._domains))
                raise InvalidInput(f"only under {shared}: what is your own is yours", field=path)
            wanted.append(address)
        held = await self._database.fetchval(_SQL.count_reserved, workspace_id, tx=tx)
        if held + len(wanted) > RESERVED_MAX:
            raise Conflict(f"a workspace holds at most {RESERVED_MAX} addresses")
        distinct = list(dict.fromkeys(wanted))
        rows = await self._database.fetch(_SQL.reserve, workspace_id, distinct, tx=tx)
        got = {row["address"] for row in rows}
        if self._names is not None:
            got -= set(await self._names.claim(ADDRESS, sorted(got), workspace_id, tx))
        for place, address in enumerate(wanted):
            if address not in got:
                raise Conflict(f"{address} is taken", field=f"addresses.{place}")
        return distinct

    async def release(
        self, workspace_id: UUID, addresses: Sequence[str], tx: Connection
    ) -> list[str]:
        """Let addresses go; those that were held. Raises InvalidInput."""
        wanted = [normalise(address) for address in addresses]
        rows = await self._database.fetch(_SQL.release, workspace_id, wanted, tx=tx)
        return sorted(row["address"] for row in rows)

    async def list(self, workspace_id: UUID, after: str, limit: int) -> list[str]:
        """Held addresses behind `after`, in order."""
        rows = await self._database.fetch(_SQL.list_reserved, workspace_id, after, limit)
        return [row["address"] for row in rows]
