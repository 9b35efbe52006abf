"""Sending domains: who a workspace may sign as, and the DKIM keys that do it.

A new domain has a key of each kind, RSA-2048 and Ed25519, which sign nothing until their records
stand in DNS: what nobody can verify is worse than no signature. A rotation makes new keys beside
the old ones; the old ones sign until the new ones are seen in DNS and are retired then. A retired
key's private half is forgotten at once, its record has to stand while mail that it signed is still
on its way (RETIRED_KEPT).
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

import asyncpg

from mailyard.access.vault import Vault
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.protocol.address import ascii_domain
from mailyard.protocol.dkim.key import PrivateKey, generate_ed25519, generate_rsa
from mailyard.protocol.dkim.record import (
    BadKeyRecord,
    parse_key_record,
    record_name,
    record_text,
)
from mailyard.protocol.dkim.tags import domain_value
from mailyard.protocol.dns_answer import Answer, Result, TemporaryFailure
from mailyard.storage.database import Connection, Database
from mailyard.storage.queries import load

_SQL = load("domain")
_LAST_ID = UUID(int=(1 << 128) - 1)
_SELECTOR_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is mistaken for another

RETIRED_KEPT = timedelta(days=14)  # longer than any mail is tried
KEYS_MAX = 12  # of one domain: a rotation a day for as long as retired ones are kept is no use
WAITING = "waiting"
SIGNING = "signing"
RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class DkimKey:
    """A key, as its owner has to publish it.

    `record` is the text of the TXT record at `record_name`. `finding` says what is wrong with what
    stands there, and is empty when nothing is, or when nobody has looked (`looked_at` is None).
    """

    id: UUID
    selector: str
    algorithm: str
    record_name: str
    record: str
    state: str
    finding: str
    looked_at: datetime | None
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class Domain:
    """A domain of a workspace, in its ASCII form, with its keys, oldest first."""

    id: UUID
    workspace_id: UUID
    name: str
    keys: tuple[DkimKey, ...]

    @property
    def created_at(self) -> datetime:
        return ids.time_of(self.id)

    @property
    def signs(self) -> bool:
        """Whether mail from this domain is signed."""
        return any(key.state == SIGNING for key in self.keys)


class TxtLookup(Protocol):
    """What a look at DNS needs (`net.dns.Resolver` fits)."""

    async def txt(self, name: str) -> Result[str]: ...


Keys = Sequence[PrivateKey]


async def fresh_keys() -> Keys:
    """A new key of each kind. Some tenths of a second of CPU, in a thread."""
    return await asyncio.to_thread(lambda: (generate_rsa(), generate_ed25519()))


class Domains:
    """The sending domains of all workspaces. The caller writes the audit rows."""

    def __init__(self, *, database: Database, vault: Vault, clock: Clock | None = None) -> None:
        self._database = database
        self._vault = vault
        self._clock = clock or SystemClock()

    async def create(self, workspace_id: UUID, name: str, keys: Keys, tx: Connection) -> Domain:
        """Add a domain with its first keys. Raises InvalidInput, Conflict when it is there."""
        domain_name = _checked(name)
        domain_id = ids.uuid7()
        if not await self._database.fetchval(
            _SQL.add_domain, workspace_id, domain_id, domain_name, tx=tx
        ):
            raise Conflict(f"{domain_name} is a sending domain already", field="name")
        await self._add_keys(workspace_id, domain_id, keys, tx)
        return await self.get(workspace_id, domain_id, tx)

    async def get(
        self, workspace_id: UUID, domain_id: UUID, tx: Connection | None = None
    ) -> Domain:
        """One domain. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_domain, workspace_id, domain_id, tx=tx)
        if row is None:
            raise NotFound("no such sending domain")
        return (await self._whole(workspace_id, [row], tx))[0]

    async def page(
        self, workspace_id: UUID, *, before: UUID | None = None, limit: int = 100
    ) -> Sequence[Domain]:
        """Domains, newest first, with ids below `before`."""
        rows = await self._database.fetch(
            _SQL.list_domains, workspace_id, before or _LAST_ID, limit
        )
        return await self._whole(workspace_id, rows)

    async def remove(self, workspace_id: UUID, domain_id: UUID, tx: Connection) -> Domain:
        """Take a domain and its keys away, and return it. Raises NotFound."""
        gone = await self.get(workspace_id, domain_id, tx)
        await self._database.execute(_SQL.remove_domain, workspace_id, domain_id, tx=tx)
        return gone

    async def rotate(
        self, workspace_id: UUID, domain_id: UUID, keys: Keys, tx: Connection
    ) -> Domain:
        """Add new keys, which sign once their records are seen. Raises NotFound, Conflict."""
        await self._hold(workspace_id, domain_id, tx)
        before = self._clock.now() - RETIRED_KEPT
        await self._database.execute(_SQL.drop_retired, workspace_id, domain_id, before, tx=tx)
        domain = await self.get(workspace_id, domain_id, tx)
        if any(key.state == WAITING for key in domain.keys):
            raise Conflict("new keys wait already: publish their records and check the domain")
        if len(domain.keys) >= KEYS_MAX:
            raise Conflict(
                f"{domain.name} has {len(domain.keys)} keys; retired ones stay for "
                f"{RETIRED_KEPT.days} days, for mail that they signed may still be on its way"
            )
        await self._add_keys(workspace_id, domain_id, keys, tx)
        return await self.get(workspace_id, domain_id, tx)

    async def look(self, domain: Domain, records: TxtLookup) -> dict[UUID, str]:
        """What DNS says about each key that is not retired: what is wrong, or empty."""
        wanted = [key for key in domain.keys if key.state != RETIRED]
        found = await asyncio.gather(*(records.txt(key.record_name) for key in wanted))
        return {key.id: finding(key, result) for key, result in zip(wanted, found, strict=True)}

    async def note(
        self, workspace_id: UUID, domain_id: UUID, findings: dict[UUID, str], tx: Connection
    ) -> Domain:
        """Keep what `look` found: keys whose records stand begin to sign, those they replace are
        retired. Raises NotFound."""
        await self._hold(workspace_id, domain_id, tx)
        now = self._clock.now()
        await self._database.execute(
            _SQL.note_looks,
            workspace_id,
            domain_id,
            list(findings),
            list(findings.values()),
            now,
            tx=tx,
        )
        await self._database.execute(_SQL.retire_keys, workspace_id, domain_id, now, tx=tx)
        return await self.get(workspace_id, domain_id, tx)

    async def seal_anew(self, limit: int = 100) -> int:
        """Seal up to `limit` private keys, of all workspaces, under the newest master key; how many
        were under an older one. Raises ConfigurationError when that is not here any more."""
        if not await self._database.fetchval(_SQL.any_sealed):
            return 0
        rows = await self._database.fetch(_SQL.sealed_otherwise, self._vault.newest, limit)
        if rows:
            opened = [self._vault.open(row["sealed_key"], row["id"].bytes) for row in rows]
            await self._database.execute(
                _SQL.seal_anew,
                [row["id"] for row in rows],
                [row["sealed_key"] for row in rows],
                [
                    self._vault.seal(secret, row["id"].bytes)
                    for secret, row in zip(opened, rows, strict=True)
                ],
            )
        return len(rows)

    async def _hold(self, workspace_id: UUID, domain_id: UUID, tx: Connection) -> None:
        if not await self._database.fetchrow(_SQL.hold_domain, workspace_id, domain_id, tx=tx):
            raise NotFound("no such sending domain")

    async def _add_keys(
        self, workspace_id: UUID, domain_id: UUID, keys: Keys, tx: Connection
    ) -> None:
        made = [(ids.uuid7(), key) for key in keys]
        stem = _stem(self._clock.now())
        await self._database.execute(
            _SQL.add_keys,
            workspace_id,
            domain_id,
            [key_id for key_id, _ in made],
            [f"{stem}-{key.algorithm.partition('-')[0]}" for _, key in made],
            [key.algorithm for _, key in made],
            [record_text(key.public()) for _, key in made],
            [self._vault.seal(key.pem(), key_id.bytes) for key_id, key in made],
            tx=tx,
        )

    async def _whole(
        self, workspace_id: UUID, rows: Sequence[asyncpg.Record], tx: Connection | None = None
    ) -> list[Domain]:
        names = {row["id"]: row["name"] for row in rows}
        keys: dict[UUID, list[DkimKey]] = {domain_id: [] for domain_id in names}
        for row in await self._database.fetch(_SQL.list_keys, workspace_id, list(names), tx=tx):
            keys[row["domain_id"]].append(_key(row, names[row["domain_id"]]))
        return [
            Domain(row["id"], workspace_id, row["name"], tuple(keys[row["id"]])) for row in rows
        ]


def finding(key: DkimKey, result: Result[str]) -> str:
    """What is wrong with the TXT records found at the key's name; empty when nothing is."""
    if isinstance(result, TemporaryFailure):
        return (
            f"DNS cannot say now what is at {key.record_name} ({result.trouble.value}); "
            "look again later"
        )
    if not isinstance(result, Answer):
        return f"there is no TXT record at {key.record_name}: add one with the text given here"
    ours = parse_key_record(key.record.encode()).key
    wrong = ""
    for text in result.records:
        try:
            found = parse_key_record(text.encode("utf-8", "replace")).key
        except BadKeyRecord as error:
            wrong = f"{error.message}: {text[:80]!r}"
            continue
        if found == ours:
            return "" if len(result.records) == 1 else _too_many(key)
        wrong = "it revokes the key" if found is None else "it has another key"
    return f"the TXT record at {key.record_name} is wrong ({wrong}): replace it"


def _too_many(key: DkimKey) -> str:
    return f"there are several TXT records at {key.record_name}: keep the one given here alone"


def _checked(name: str) -> str:
    try:
        return domain_value(ascii_domain(name.strip().removesuffix(".")), "name")
    except InvalidInput:
        raise InvalidInput(
            f"{name[:80]!r} is no domain; a full name like example.org is wanted", field="name"
        ) from None


def _stem(now: datetime) -> str:
    """How the selectors of keys made now begin: the day, and what tells two of a day apart."""
    return f"my{now:%y%m%d}" + "".join(secrets.choice(_SELECTOR_ALPHABET) for _ in range(3))


def _key(row: asyncpg.Record, domain: str) -> DkimKey:
    return DkimKey(
        id=row["id"],
        selector=row["selector"],
        algorithm=row["algorithm"],
        record_name=record_name(row["selector"], domain),
        record=row["record"],
        state=row["state"],
        finding=row["finding"],
        looked_at=row["looked_at"],
        retired_at=row["retired_at"],
    )
