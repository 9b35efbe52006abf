"""Sending domains: who a workspace may sign as, and the DKIM keys that do it.

A new domain has a key of each kind, RSA-2048 and Ed25519, which sign nothing until their records
stand in DNS: what nobody can verify is worse than no signature. A rotation makes new keys beside
the old ones; the old ones sign until the new ones are seen in DNS and are retired then. A retired
key's private half is forgotten at once, its record has to stand while mail that it signed is still
on its way (RETIRED_KEPT).

What DNS says of all its records is found by `domain_check.look` and kept here by `Domains.note`: a
return-path name of the domain's own is used from when its records stand.
"""

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
import msgspec

from mailyard.access.vault import Vault
from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.protocol.address import ascii_domain
from mailyard.protocol.dkim.key import PrivateKey, generate_ed25519, generate_rsa
from mailyard.protocol.dkim.record import record_name, record_text
from mailyard.protocol.dkim.tags import domain_value
from mailyard.protocol.dns_records import Purpose, State, Verdict
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

_STANDS = (State.GOOD, State.WARNING)
_RETURN_PATH = (Purpose.RETURN_PATH, Purpose.RETURN_PATH_SPF)
_decode_verdicts = msgspec.json.Decoder(tuple[Verdict, ...]).decode


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
    """A domain of a workspace, in its ASCII form, with its keys, oldest first.

    `return_path`: the name under it to which its mail comes back, '' for the one that all share;
    used once it is `return_path_ready`. `verdicts`: what the last check found, at `checked_at`.
    """

    id: UUID
    workspace_id: UUID
    name: str
    keys: tuple[DkimKey, ...]
    return_path: str = ""
    return_path_ready: bool = False
    verdicts: tuple[Verdict, ...] = ()
    checked_at: datetime | None = None

    @property
    def created_at(self) -> datetime:
        return ids.time_of(self.id)

    @property
    def signs(self) -> bool:
        """Whether mail from this domain is signed."""
        return any(key.state == SIGNING for key in self.keys)


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

    async def create(
        self, workspace_id: UUID, name: str, keys: Keys, tx: Connection, return_path: str = ""
    ) -> Domain:
        """Add a domain with its first keys. Raises InvalidInput, Conflict when it is there."""
        domain_name = _checked(name, "name")
        domain_id = ids.uuid7()
        if not await self._database.fetchval(
            _SQL.add_domain,
            workspace_id,
            domain_id,
            domain_name,
            _name_below(domain_name, return_path),
            tx=tx,
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

    async def set_return_path(
        self, workspace_id: UUID, domain_id: UUID, return_path: str, tx: Connection
    ) -> Domain:
        """Let mail come back to `return_path`, a name under the domain ('bounces' will do), once
        its records stand; '' for the one that all share. Raises NotFound, InvalidInput."""
        domain = await self.get(workspace_id, domain_id, tx)
        wanted = _name_below(domain.name, return_path)
        await self._database.execute(_SQL.set_return_path, workspace_id, domain_id, wanted, tx=tx)
        return await self.get(workspace_id, domain_id, tx)

    async def note(
        self, workspace_id: UUID, domain_id: UUID, verdicts: Sequence[Verdict], tx: Connection
    ) -> Domain:
        """Keep what a check found: keys whose records stand begin to sign, those they replace are
        retired; a return-path is used or not. Raises NotFound."""
        await self._hold(workspace_id, domain_id, tx)
        domain, now = await self.get(workspace_id, domain_id, tx), self._clock.now()
        by_name = {one.name: one for one in verdicts if one.purpose is Purpose.DKIM}
        seen = [(key.id, by_name[key.record_name]) for key in domain.keys
                if key.state != RETIRED and key.record_name in by_name]  # fmt: skip
        await self._database.execute(
            _SQL.note_looks,
            workspace_id,
            domain_id,
            [key_id for key_id, _ in seen],
            [finding(verdict) for _, verdict in seen],
            [verdict.state in _STANDS for _, verdict in seen],
            now,
            tx=tx,
        )
        await self._database.execute(_SQL.retire_keys, workspace_id, domain_id, now, tx=tx)
        await self._database.execute(
            _SQL.note_check,
            workspace_id,
            domain_id,
            _return_path_ready(domain, verdicts),
            msgspec.json.encode(verdicts).decode(),
            now,
            tx=tx,
        )
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
            Domain(
                row["id"],
                workspace_id,
                row["name"],
                tuple(keys[row["id"]]),
                row["return_path"],
                row["return_path_ready"],
                _decode_verdicts(row["verdicts"]),
                row["checked_at"],
            )
            for row in rows
        ]


def finding(verdict: Verdict) -> str:
    """What is wrong with a record, in a sentence; empty when nothing is."""
    if verdict.state is State.GOOD:
        return ""
    if verdict.state is State.UNKNOWN:
        return f"{verdict.problem}; look again later"
    if verdict.state is State.MISSING:
        return f"{verdict.problem} at {verdict.name}: add the one given here"
    if not verdict.write:
        return verdict.problem
    return f"{verdict.problem}: replace what stands at {verdict.name} with the record given here"


def _return_path_ready(domain: Domain, verdicts: Sequence[Verdict]) -> bool:
    """Whether the return-path's records stand; what DNS could not say changes nothing."""
    mine = [one for one in verdicts if one.purpose in _RETURN_PATH]
    states = [one.state for one in mine if one.name == domain.return_path]
    if any(state in (State.MISSING, State.WRONG) for state in states):
        return False
    if any(state is State.UNKNOWN for state in states):
        return domain.return_path_ready
    return bool(domain.return_path and states)


def _name_below(domain: str, text: str) -> str:
    """The full name of `text`, which is one label or more, or the full name itself."""
    text = text.strip().lower().removesuffix(".")
    if not text:
        return ""
    if text == domain:
        raise InvalidInput(f"a name under {domain} is wanted, like bounces", field="return_path")
    return _checked(text if text.endswith(f".{domain}") else f"{text}.{domain}", "return_path")


def _checked(name: str, field: str) -> str:
    try:
        return domain_value(ascii_domain(name.strip().removesuffix(".")), field)
    except InvalidInput:
        raise InvalidInput(
            f"{name[:80]!r} is no domain; a full name like example.org is wanted", field=field
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
