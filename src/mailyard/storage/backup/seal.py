"""What lies in the store, sealed: compressed, then AES-256-GCM (NIST SP 800-38D).

    MYB1 | key id (4 bytes) | nonce (12) | ciphertext and tag

The name under which a piece lies is authenticated with it: a piece put in another's place does not
open. Nonces are random; of pieces of megabytes there are far fewer than 2^32 under one key.

The key comes from the installation's master key, or from a passphrase by scrypt (RFC 7914) with the
store's own salt. Under a passphrase the master key itself is part of the backup: whoever remembers
the passphrase needs nothing else. Without one, the master key must be kept elsewhere too.
"""

import base64
import json
import secrets
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from mailyard.core.errors import ConfigurationError, NotFound
from mailyard.core.limits import MIB
from mailyard.storage.backup.store import Store

PIECE_BYTES = 16 * MIB
HEAD = "backup.json"
_MAGIC = b"MYB1"
_NONCE_BYTES = 12
_KEY_ID_BYTES = 4
_SALT_BYTES = 16
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**15, 8, 1  # 32 MB and some 0.1 s: RFC 7914's interactive use
_LEVEL = 1  # zlib's fastest: a backup must not cost the mail its processor
_CHECK = "check"


class Sealer:
    """Seals under the first of `keys` (32 bytes each), opens what any of them has sealed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {_id_of(key): AESGCM(key) for key in keys}
        self._first = _id_of(keys[0])

    def seal(self, name: str, content: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        head = _MAGIC + self._first + nonce
        packed = zlib.compress(content, _LEVEL)
        return head + self._ciphers[self._first].encrypt(nonce, packed, head + name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """The content. Raises ConfigurationError for another key's, or a changed one."""
        size = len(_MAGIC) + _KEY_ID_BYTES + _NONCE_BYTES
        head = sealed[:size]
        if len(head) < size or not head.startswith(_MAGIC):
            raise ConfigurationError(f"{name} in the backup is damaged")
        cipher = self._ciphers.get(head[len(_MAGIC) : len(_MAGIC) + _KEY_ID_BYTES])
        if cipher is None:
            raise ConfigurationError(
                f"{name} in the backup is sealed under another key; give the passphrase "
                "(MAILYARD_BACKUP_PASSPHRASE) or the master key (MAILYARD_MASTER_KEY) of then"
            )
        try:
            packed = cipher.decrypt(head[-_NONCE_BYTES:], sealed[size:], head + name.encode())
            return zlib.decompress(packed)
        except (InvalidTag, zlib.error):
            raise ConfigurationError(
                f"{name} in the backup was changed or damaged; restore from an earlier base backup"
            ) from None


async def sealer_of(
    store: Store, passphrase: str, master_keys: Callable[[], Sequence[bytes]]
) -> Sealer:
    """The sealer of this store, which is made ready at the first use.

    `master_keys`: keys made from the master keys for this purpose, newest first; asked for only
    without a passphrase. Raises ConfigurationError when the store was made with the other kind of
    key, or with another one.
    """
    try:
        head = json.loads(await store.get(HEAD))
    except NotFound:
        head = await _make_head(store, passphrase, master_keys)
    except ValueError:
        raise ConfigurationError(f"{HEAD} in the backup store is damaged") from None
    by_passphrase = head["key"] == "passphrase"
    if by_passphrase is not bool(passphrase):
        wants = "needs MAILYARD_BACKUP_PASSPHRASE" if by_passphrase else "was made without one"
        raise ConfigurationError(
            f"the backup store {wants}; set it so, or name an empty store in MAILYARD_BACKUP"
        )
    sealer = Sealer(_keys(head["salt"], passphrase, master_keys))
    sealer.open(_CHECK, base64.b64decode(head[_CHECK]))
    return sealer


async def _make_head(
    store: Store, passphrase: str, master_keys: Callable[[], Sequence[bytes]]
) -> dict[str, str]:
    salt = base64.b64encode(secrets.token_bytes(_SALT_BYTES)).decode()
    check = Sealer(_keys(salt, passphrase, master_keys)).seal(_CHECK, b"mailyard")
    head = {
        "format": "1",
        "key": "passphrase" if passphrase else "master key",
        "salt": salt,
        _CHECK: base64.b64encode(check).decode(),
    }
    await store.put(HEAD, json.dumps(head, indent=1).encode())
    return head


def _keys(
    salt: str, passphrase: str, master_keys: Callable[[], Sequence[bytes]]
) -> Sequence[bytes]:
    if not passphrase:
        return master_keys()
    scrypt = Scrypt(salt=base64.b64decode(salt), length=32, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P)
    return [scrypt.derive(passphrase.encode())]


def _id_of(key: bytes) -> bytes:
    return sha256(b"mailyard backup key" + key).digest()[:_KEY_ID_BYTES]
