"""Secrets at rest: sealed under a master key that is not in the database.

A sealed secret says which master key it needs and belongs to one subject (the row it lies in), so
that it opens nowhere else. Several master keys may be alive: the first seals, all of them open.
That is how a key is changed: put the new one first, start anew, let the scheduler seal anew what
the old one sealed (`fleet/duties/secrets.py`), take the old one away.

AES-256-GCM (NIST SP 800-38D) with random nonces of 96 bits: far below 2^32 secrets under one key.
"""

import hmac
import secrets
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mailyard.access.master_key import ID_BYTES, id_of
from mailyard.core.errors import ConfigurationError

_FORMAT = b"\x01"
_NONCE_BYTES = 12
_HEAD_BYTES = 1 + ID_BYTES + _NONCE_BYTES
_TAG_BYTES = 16


class Vault:
    """Seals and opens.

    `master_keys` gives them, newest first, and is called when the first secret is sealed or opened:
    a process that has none to do with needs no key. What it raises is raised then.
    """

    def __init__(self, master_keys: Callable[[], Sequence[bytes]]) -> None:
        self._master_keys = master_keys

    @cached_property
    def _keys(self) -> tuple[bytes, ...]:
        return tuple(self._master_keys())

    @cached_property
    def _ciphers(self) -> dict[bytes, AESGCM]:
        """By the key's id, the newest first."""
        return {id_of(key): AESGCM(key) for key in self._keys}

    def seal(self, secret: bytes, subject: bytes) -> bytes:
        """`secret` as it may lie in a table, for the row that `subject` names."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        key_id, cipher = next(iter(self._ciphers.items()))
        head = _FORMAT + key_id + nonce
        return head + cipher.encrypt(nonce, secret, head + subject)

    def open(self, sealed: bytes, subject: bytes) -> bytes:
        """The secret. Raises ConfigurationError for one of a master key that is not here, or that
        was changed, or that belongs to another row."""
        if len(sealed) < _HEAD_BYTES + _TAG_BYTES or sealed[:1] != _FORMAT:
            raise ConfigurationError("a sealed secret is damaged; restore it from a backup")
        head, key_id = sealed[:_HEAD_BYTES], _key_id(sealed)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise ConfigurationError(
                f"a secret is sealed under master key {key_id.hex()}, which is not among "
                f"{', '.join(known.hex() for known in self._ciphers)}; add it to "
                "MAILYARD_MASTER_KEY, behind the newest"
            )
        nonce = head[-_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, sealed[_HEAD_BYTES:], head + subject)
        except InvalidTag:
            raise ConfigurationError(
                "a sealed secret was changed, or belongs to another row; restore it from a backup"
            ) from None

    def keys_for(self, purpose: str) -> tuple[bytes, ...]:
        """Keys of 32 bytes for `purpose` alone, newest first: one from each master key.

        What is signed with them stays good while its master key is among the settings. Derived by
        HMAC-SHA256, which a uniform key may be expanded with (RFC 5869 section 3.3).
        """
        text = b"mailyard key for " + purpose.encode() + b"\x01"
        return tuple(hmac.digest(key, text, sha256) for key in self._keys)

    @property
    def newest(self) -> bytes:
        """The id of the master key that seals; it stands in a sealed secret from its second byte
        on, for queries that look for what an older one has sealed."""
        return next(iter(self._ciphers))


def _key_id(sealed: bytes) -> bytes:
    return sealed[1 : 1 + ID_BYTES]
