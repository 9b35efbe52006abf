"""Master keys: where they come from, and that all processes of an installation have the same.

They are not in the database. The database remembers which ones are in use, by their ids, so that a
machine that would make a key of its own, and sign links and return-paths that no other machine
knows, is refused at its start.
"""

import base64
import binascii
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from mailyard.core.errors import ConfigurationError
from mailyard.storage.queries import load

if TYPE_CHECKING:
    from mailyard.storage.database import Database

QUERIES = load("master_key")
MASTER_KEY_BYTES = 32
FILE_NAME = "master.key"
ID_BYTES = 4


async def meet(database: "Database", settings_key: str, folder: Path) -> None:
    """Hold the keys of this machine, those of the setting or those in `folder`, against the ones
    that the installation uses; the newest is noted as one of them.

    A new key comes in beside one that is known, as when keys are changed. Raises
    ConfigurationError when none of ours is known, and when one would have to be made here while
    the installation has one.
    """
    keys = parse_master_keys(settings_key)
    async with database.transaction() as tx:
        await database.execute(QUERIES.alone, tx=tx)
        # Looked for under the lock: who had it before may have made the key, and noted it.
        if not keys and (folder / FILE_NAME).exists():
            keys = ensure_master_key(folder)
        known = {bytes(row["id"]) for row in await database.fetch(QUERIES.known, tx=tx)}
        if known and not known & {id_of(key) for key in keys}:
            raise ConfigurationError(_stranger(keys, known, folder))
        keys = keys or ensure_master_key(folder)
        if id_of(keys[0]) not in known:
            await database.execute(QUERIES.note, id_of(keys[0]), tx=tx)


def id_of(key: bytes) -> bytes:
    """What a key is called where others may read it."""
    return sha256(b"mailyard master key" + key).digest()[:ID_BYTES]


def _stranger(keys: Sequence[bytes], known: set[bytes], folder: Path) -> str:
    wanted = " or ".join(sorted(one.hex() for one in known))
    here = ", ".join(id_of(key).hex() for key in keys)
    mine = f"master key {here}" if here else "no master key"
    return (
        f"this machine has {mine}, the installation uses {wanted}: set MAILYARD_MASTER_KEY to the "
        f"one that the other machines have, or restore {folder / FILE_NAME} from a backup"
    )


def parse_master_keys(text: str) -> list[bytes]:
    """Master keys, newest first: base64 of 32 bytes each, with commas between.

    Raises ValueError.
    """
    keys = []
    for piece in filter(None, (piece.strip() for piece in text.split(","))):
        try:
            key = base64.b64decode(piece.translate(_FROM_URL_SAFE), validate=True)
        except binascii.Error:
            raise ValueError("a master key is not base64") from None
        if len(key) != MASTER_KEY_BYTES:
            raise ValueError(f"a master key has {MASTER_KEY_BYTES} bytes, this one {len(key)}")
        keys.append(key)
    return keys


def ensure_master_key(folder: Path) -> list[bytes]:
    """The keys in `folder`, one made when there is none.

    Several processes may call this at once: the file appears whole and only once. Raises
    ConfigurationError when it cannot be read or written, or holds no keys.
    """
    path = folder / FILE_NAME
    try:
        if not path.exists():
            _make(path)
        keys = parse_master_keys(path.read_text("ascii").replace("\n", ","))
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the master key in {path} cannot be used: {error}; it keeps the secrets of this "
            "installation, so restore the file, or set MAILYARD_MASTER_KEY"
        ) from None
    if not keys:
        raise ConfigurationError(f"{path} holds no master key; restore it from a backup")
    return keys


def new_master_key() -> str:
    """A fresh key as text."""
    return base64.b64encode(secrets.token_bytes(MASTER_KEY_BYTES)).decode("ascii")


_FROM_URL_SAFE = str.maketrans("-_", "+/")


def _make(path: Path) -> None:
    """Write a key beside its place and link it there: whoever is second keeps the first's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(new_master_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(partial, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        partial.unlink()
