"""Which keys sign a mail, and where it comes back to: those of its sender's domain that are seen in
DNS, and the domain's return-path.

What was found is remembered for REMEMBERED_S, in every process by itself: so long a key that was
just rotated may still sign, and its record stands for two weeks more. A mail from a domain that the
workspace does not have is not signed.
"""

from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

import asyncpg

from mailyard.access.vault import Vault
from mailyard.core.clock import Clock, SystemClock
from mailyard.core.errors import ConfigurationError, InvalidInput, Unavailable
from mailyard.protocol.address import ascii_domain, parse_mailbox
from mailyard.protocol.arc import Sealer
from mailyard.protocol.dkim.key import PrivateKey, load_private_key
from mailyard.protocol.dkim.sign import Signer
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("domain")

REMEMBERED_S = 10.0
_DOMAINS_REMEMBERED = 10_000

_NEVER_ASKED: tuple[float, tuple[Signer, ...], str] = (-1.0, (), "")

Owned = tuple[UUID, str]  # workspace, domain in its ASCII form


class Signing:
    """Finds signers and keeps them. One for a process.

    `spares` says whether some of a workspace's mail goes through a provider that writes fields of
    its own in the place of ours; then those are not signed (`Signer.sparing`).
    """

    def __init__(
        self,
        *,
        database: Database,
        vault: Vault,
        clock: Clock | None = None,
        spares: Callable[[UUID], bool] | None = None,
    ) -> None:
        self._database = database
        self._vault = vault
        self._spares = spares or (lambda _: False)
        self._clock = clock or SystemClock()
        self._known: dict[Owned, tuple[float, tuple[Signer, ...], str]] = {}
        # By key: opening one costs as much as signing.
        self._loaded: dict[tuple[UUID, bool], Signer] = {}

    async def signers(self, workspace_id: UUID, domain: str) -> Sequence[Signer]:
        """What signs for `domain`; nothing when that is not the workspace's."""
        return (await self.signers_of([(workspace_id, domain)]))[workspace_id, domain]

    async def signers_of(self, asked: Iterable[Owned]) -> dict[Owned, Sequence[Signer]]:
        """What signs for each of `asked`. Raises Unavailable, also when a key cannot be opened: a
        mail that should be signed does not leave without, it waits."""
        now = self._clock.monotonic()
        held: dict[Owned, Sequence[Signer]] = {}
        missing = []
        for one in set(asked):
            until, signers, _ = self._known.get(one, _NEVER_ASKED)
            if until < now:
                missing.append(one)
            else:
                held[one] = signers
        if missing:
            held |= await self._look_up(missing, now + REMEMBERED_S)
        return held

    def return_domain(self, workspace_id: UUID, domain: str) -> str:
        """Where mail of `domain` comes back to, when that is a name of its own; for who has just
        asked for its signers."""
        return self._known.get((workspace_id, domain), _NEVER_ASKED)[2]

    async def sealer(self, workspace_id: UUID, domain: str, authserv_id: str) -> Sealer | None:
        """What seals mail that `domain` sends on: its newest RSA key, the one kind that all who
        check seals know; None where it has none that signs. Raises Unavailable."""
        rows = await self._database.fetch(_SQL.signing_keys, [workspace_id], [domain])
        for row in reversed(rows):
            if row["id"] is not None:
                key = self._private_key(row)
                if key.algorithm.startswith("rsa"):
                    return Sealer(row["name"], row["selector"], key, authserv_id)
        return None

    async def _look_up(
        self, asked: Sequence[Owned], until: float
    ) -> dict[Owned, tuple[Signer, ...]]:
        rows = await self._database.fetch(
            _SQL.signing_keys, [one[0] for one in asked], [one[1] for one in asked]
        )
        found: dict[Owned, list[Signer]] = {one: [] for one in asked}
        return_domains: dict[Owned, str] = {}
        for row in rows:
            one = row["workspace_id"], row["name"]
            return_domains[one] = row["return_path"]
            if row["id"] is None:
                continue
            sparing = self._spares(row["workspace_id"])
            signer = self._loaded.get((row["id"], sparing))
            if signer is None:
                key = self._private_key(row)
                signer = Signer(row["name"], row["selector"], key, sparing=sparing)
            found[one].append(signer)
            self._loaded[row["id"], sparing] = signer
        if len(self._known) > _DOMAINS_REMEMBERED:
            self._known.clear()
            self._loaded.clear()
        signing = {one: tuple(signers) for one, signers in found.items()}
        self._known.update(
            (one, (until, signers, return_domains.get(one, ""))) for one, signers in signing.items()
        )
        return signing

    def _private_key(self, row: asyncpg.Record) -> PrivateKey:
        try:
            return load_private_key(self._vault.open(row["sealed_key"], row["id"].bytes))
        except ConfigurationError as error:
            why = f"mail from {row['name']} cannot be signed: {error.message}"
            raise Unavailable(why) from error


def sender_domain(sender: str) -> str:
    """The domain of a From, as `Domain.name` has it; empty when there is none to sign for."""
    try:
        return ascii_domain(parse_mailbox(sender).address.rpartition("@")[2])
    except InvalidInput:
        return ""
