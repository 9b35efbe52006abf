"""What a base backup is, and which one a restore begins with."""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from mailyard.core.errors import ConfigurationError, NotFound
from mailyard.storage.backup.seal import Sealer
from mailyard.storage.backup.store import Store

_FORMAT = 1


class Piece(msgspec.Struct, frozen=True):
    """One piece of the tar stream, before it was compressed and sealed."""

    size_bytes: int
    sha256: str


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """One base backup. `first_wal` is the segment that a recovery begins with."""

    id: str
    started_at: datetime
    finished_at: datetime
    major: int
    system_id: str
    timeline: int
    first_wal: str
    segment_bytes: int
    database: str
    role: str
    schema: int
    pieces: list[Piece]
    stored_bytes: int
    keys: bytes = b""  # the installation's master keys, when a passphrase seals the backup
    format: int = _FORMAT

    @property
    def size_bytes(self) -> int:
        return sum(piece.size_bytes for piece in self.pieces)

    def piece_name(self, index: int) -> str:
        return f"base/{self.id}/{index + 1:08d}"


def manifest_name(base_id: str) -> str:
    return f"base/{base_id}/manifest"


async def write_manifest(store: Store, sealer: Sealer, base: Base) -> None:
    """From now on the base backup counts."""
    name = manifest_name(base.id)
    await store.put(name, sealer.seal(name, msgspec.json.encode(base)))


async def read_bases(store: Store, sealer: Sealer) -> list[Base]:
    """All base backups that were finished, oldest first. Raises ConfigurationError."""
    found = []
    for name in await store.names("base/"):
        if not name.endswith("/manifest"):
            continue
        try:
            text = sealer.open(name, await store.get(name))
        except NotFound:
            continue  # removed since it was listed
        base = msgspec.json.decode(text, type=Base)
        if base.format != _FORMAT:
            raise ConfigurationError(f"{name} was written by a newer Mailyard; use that one")
        found.append(base)
    return sorted(found, key=lambda base: base.finished_at)


def choose_base(bases: Sequence[Base], at: datetime | None) -> Base:
    """The newest one that was whole at `at`. Raises NotFound when there is none."""
    fit = [base for base in bases if at is None or base.finished_at <= at]
    if fit:
        return fit[-1]
    if not bases:
        raise NotFound("the backup store has no finished base backup")
    raise NotFound(
        f"the oldest base backup was finished at {bases[0].finished_at.isoformat()}; "
        "there is nothing from before that to restore"
    )
