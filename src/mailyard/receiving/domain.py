"""Own receiving domains: a workspace receives for a domain once DNS has shown that it is its own.

The proof is a TXT record with the workspace's token at `_mailyard.<domain>`: who may write there,
owns the domain. A domain that is proved stays so when its record goes (a slip in DNS must not cost
anybody mail), until another workspace proves that it is its own: then the record that stands says
whose it is. Mail comes once the domain's MX points here too; that it does not is said, and stops
nothing.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

import asyncpg

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import Conflict, InvalidInput, NotFound
from mailyard.protocol.address import ascii_domain
from mailyard.protocol.dkim.tags import domain_value
from mailyard.protocol.dns_answer import Answer, MxRecord, Result, TemporaryFailure
from mailyard.storage.database import Connection, Database
from mailyard.storage.names import DOMAIN, Names
from mailyard.storage.queries import load

_SQL = load("receiving_domain")
_LAST_ID = UUID(int=(1 << 128) - 1)
_ADDRESSES_FREED = 20_000  # a statement
_TOKEN_ALPHABET = "abcdefghjkmnpqrstvwxyz23456789"
_TOKEN_CHARACTERS = 32

PROOF_LABEL = "_mailyard"
PROOF_WORD = "mailyard-domain="

GOOD, MISSING, WRONG, UNKNOWN, UNCHECKED = "good", "missing", "wrong", "unknown", "unchecked"


@dataclass(frozen=True, slots=True)
class ReceivingDomain:
    """A domain of a workspace. It receives once it is proved; `finding` says why it is not.

    `mx_state`: good, missing, wrong, unknown or unchecked; `mx_finding`: what is wrong.
    """

    id: UUID
    workspace_id: UUID
    name: str
    token: str
    plus: bool
    proved_at: datetime | None
    checked_at: datetime | None
    finding: str
    mx_state: str
    mx_finding: str

    @property
    def created_at(self) -> datetime:
        return ids.time_of(self.id)

    @property
    def proof_name(self) -> str:
        """Where the TXT record has to stand."""
        return f"{PROOF_LABEL}.{self.name}"

    @property
    def proof_text(self) -> str:
        """What it has to say."""
        return PROOF_WORD + self.token


@dataclass(frozen=True, slots=True)
class Look:
    """What DNS says of a domain. `tokens`: those that stand there; None: DNS could not say."""

    tokens: frozenset[str] | None
    proof_finding: str
    mx_state: str
    mx_finding: str


class Dns(Protocol):
    """What a look needs (`net.dns.Resolver` fits)."""

    async def txt(self, name: str) -> Result[str]: ...

    async def mx(self, domain: str) -> Result[MxRecord]: ...


class ReceivingDomains:
    """The receiving domains of all workspaces. The caller writes the audit rows, and announces
    `elsewhere.TOPIC` after the commit.

    `installation`: the domains that all workspaces share; `host`: the name of our mail server.
    """

    def __init__(
        self,
        *,
        database: Database,
        installation: Sequence[str],
        host: str,
        clock: Clock | None = None,
        names: Names | None = None,
    ) -> None:
        """`names`: where there are several database clusters."""
        self._names = names
        self._database = database
        self._installation = frozenset(name.lower() for name in installation)
        self.host = host.lower()
        self._clock = clock or SystemClock()

    async def create(self, workspace_id: UUID, name: str, tx: Connection) -> ReceivingDomain:
        """Add a domain, which receives once it is proved. Raises InvalidInput, Conflict."""
        checked = _checked(name)
        if checked in self._installation:
            raise InvalidInput("all workspaces share this domain: make inboxes there", field="name")
        token = "".join(secrets.choice(_TOKEN_ALPHABET) for _ in range(_TOKEN_CHARACTERS))
        row = await self._database.fetchrow(
            _SQL.add_domain, workspace_id, ids.uuid7(), checked, token, tx=tx
        )
        if row is None:
            raise Conflict(f"{checked} is a receiving domain already", field="name")
        return _domain(row)

    async def get(
        self, workspace_id: UUID, domain_id: UUID, tx: Connection | None = None
    ) -> ReceivingDomain:
        """One domain. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.get_domain, workspace_id, domain_id, tx=tx)
        return _existing(row)

    async def page(
        self, workspace_id: UUID, *, before: UUID | None = None, limit: int = 100
    ) -> Sequence[ReceivingDomain]:
        """Domains, newest first, with ids below `before`."""
        rows = await self._database.fetch(
            _SQL.list_domains, workspace_id, before or _LAST_ID, limit
        )
        return [_domain(row) for row in rows]

    async def set_plus(
        self, workspace_id: UUID, domain_id: UUID, plus: bool, tx: Connection
    ) -> ReceivingDomain:
        """Whether `ada+anything` leads where `ada` does. Raises NotFound."""
        row = await self._database.fetchrow(_SQL.set_plus, workspace_id, domain_id, plus, tx=tx)
        return _existing(row)

    async def remove(self, workspace_id: UUID, domain_id: UUID, tx: Connection) -> ReceivingDomain:
        """Take a domain away with its routes, and return it: its addresses take no mail any more,
        its inboxes can be read until they end. Raises NotFound."""
        gone = await self.get(workspace_id, domain_id, tx)
        await self._free(workspace_id, domain_id, tx)
        await self._database.execute(_SQL.remove_domain, workspace_id, domain_id, tx=tx)
        return gone

    async def look(self, domain: ReceivingDomain, dns: Dns) -> Look:
        """Ask DNS for the proof and for the MX."""
        texts = await dns.txt(domain.proof_name)
        tokens, finding = _proof(domain, texts)
        state, mx_finding = judge_mx(self.host, await dns.mx(domain.name))
        return Look(tokens, finding, state, mx_finding)

    async def note(
        self, workspace_id: UUID, domain_id: UUID, look: Look, tx: Connection
    ) -> ReceivingDomain:
        """Keep what `look` found: a domain whose record stands is proved.

        Raises NotFound, and Conflict while another workspace's record stands too.
        """
        domain = await self.get(workspace_id, domain_id, tx)
        proved = domain.proved_at is not None
        if look.tokens is not None and domain.token in look.tokens and not proved:
            await self._take_over(domain, look.tokens, tx)
            proved = True
        try:
            async with tx.transaction():
                row = await self._database.fetchrow(
                    _SQL.note_check,
                    workspace_id,
                    domain_id,
                    self._clock.now(),
                    proved,
                    look.proof_finding,
                    look.mx_state,
                    look.mx_finding,
                    tx=tx,
                )
        except asyncpg.UniqueViolationError:
            raise Conflict(f"another workspace has proved {domain.name} this moment") from None
        if proved and domain.proved_at is None:
            await self._claim(domain, tx)
        return _existing(row)

    async def _claim(self, domain: ReceivingDomain, tx: Connection) -> None:
        """Raises Conflict when a workspace in another cluster has the domain."""
        if self._names is not None and await self._names.claim(
            DOMAIN, [domain.name], domain.workspace_id, tx
        ):
            raise Conflict(
                f"a workspace in another database cluster has {domain.name}; it has to remove "
                "the domain first, or the operator moves one of the two to the other's cluster"
            )

    async def _take_over(
        self, domain: ReceivingDomain, tokens: frozenset[str], tx: Connection
    ) -> None:
        """Whoever had the domain before has it no more, where his record is gone."""
        holder = await self._database.fetchrow(_SQL.holder, domain.name, tx=tx)
        if holder is None or holder["id"] == domain.id:
            return
        if holder["token"] in tokens:
            raise Conflict(
                f"another workspace has {domain.name}, and its record stands: remove that record"
            )
        await self._free(holder["workspace_id"], holder["id"], tx)
        await self._database.execute(
            _SQL.lose_domain,
            holder["workspace_id"],
            holder["id"],
            "another workspace has proved that the domain is its own",
            tx=tx,
        )

    async def _free(self, workspace_id: UUID, domain_id: UUID, tx: Connection) -> None:
        while True:
            tag = await self._database.execute(
                _SQL.free_addresses, workspace_id, domain_id, _ADDRESSES_FREED, tx=tx
            )
            if int(tag.rsplit(" ", 1)[-1]) < _ADDRESSES_FREED:
                return


def _proof(domain: ReceivingDomain, texts: Result[str]) -> tuple[frozenset[str] | None, str]:
    if isinstance(texts, TemporaryFailure):
        return None, f"DNS cannot say now ({texts.trouble.value}); look again later"
    found = frozenset(
        text.strip().removeprefix(PROOF_WORD)
        for text in (texts.records if isinstance(texts, Answer) else ())
        if text.strip().startswith(PROOF_WORD)
    )
    if domain.token in found:
        return found, ""
    if found:
        return found, f"the TXT record at {domain.proof_name} is another one: add {PROOF_WORD}…"
    return found, f"there is no TXT record at {domain.proof_name}: add the one given here"


def judge_mx(host: str, result: Result[MxRecord]) -> tuple[str, str]:
    """How a domain's MX stands towards `host`, our mail server, and what is wrong with it."""
    if isinstance(result, TemporaryFailure):
        return UNKNOWN, f"DNS cannot say now ({result.trouble.value}); look again later"
    if not isinstance(result, Answer):
        return MISSING, f"there is no MX record: add one with the value 10 {host}"
    hosts = sorted(result.records, key=lambda record: record.preference)
    names = [record.host for record in hosts]
    if host not in names:
        return WRONG, f"mail goes to {', '.join(names)[:200]}: add an MX record for {host}"
    if hosts[0].preference < next(one.preference for one in hosts if one.host == host):
        return GOOD, f"mail goes to {names[0]} first, and here only when that is away"
    return GOOD, ""


def _checked(name: str) -> str:
    try:
        return domain_value(ascii_domain(name.strip().removesuffix(".")), "name")
    except InvalidInput:
        raise InvalidInput(
            f"{name[:80]!r} is no domain; a full name like example.org is wanted", field="name"
        ) from None


def _existing(row: asyncpg.Record | None) -> ReceivingDomain:
    if row is None:
        raise NotFound("no such receiving domain")
    return _domain(row)


def _domain(row: asyncpg.Record) -> ReceivingDomain:
    return ReceivingDomain(**row)
