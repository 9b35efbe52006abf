"""Keys: RSA (RFC 6376, sizes of RFC 8301) and Ed25519 (RFC 8463).

A private key is loaded once and signs many times; it goes to and from storage as PKCS#8 PEM.
"""

from base64 import b64encode
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from mailyard.core.errors import InvalidInput

RSA_SHA256 = "rsa-sha256"
ED25519_SHA256 = "ed25519-sha256"
KEY_TYPES = {"rsa": RSA_SHA256, "ed25519": ED25519_SHA256}

RSA_NEW_BITS = 2048  # RFC 8301 section 3.2: signers should use at least that
RSA_LEAST_BITS = 1024  # RFC 8301 section 3.2: less must not be signed with, nor count as valid
RSA_SIGN_BITS = 4096  # RFC 8301 section 3.2: verifiers need not read longer ones
RSA_VERIFY_BITS = 8192  # twice that; a check costs as the square
_RSA_EXPONENT = 65537
_PADDING = PKCS1v15()
_DIGESTED = Prehashed(hashes.SHA256())


class BadKey(InvalidInput):
    """Not a key that DKIM can use; the message says why."""

    code = "invalid_dkim_key"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What a key record holds. `algorithm` is RSA_SHA256 or ED25519_SHA256."""

    algorithm: str
    _key: rsa.RSAPublicKey | Ed25519PublicKey

    @property
    def bits(self) -> int:
        return self._key.key_size if isinstance(self._key, rsa.RSAPublicKey) else 256

    @property
    def refusal(self) -> str:
        """Why signatures by this key do not count (RFC 8301 section 3.2); empty when they do."""
        if isinstance(self._key, rsa.RSAPublicKey):
            if self.bits < RSA_LEAST_BITS:
                return f"the RSA key of {self.bits} bits is shorter than {RSA_LEAST_BITS}"
            if self.bits > RSA_VERIFY_BITS:
                return f"the RSA key of {self.bits} bits is longer than {RSA_VERIFY_BITS}"
        return ""

    def verifies(self, signature: bytes, digest: bytes) -> bool:
        """Whether `signature` is this key's on `digest`, a SHA-256 hash."""
        try:
            if self.algorithm == ED25519_SHA256:
                self._key.verify(signature, digest)  # type: ignore[call-arg]
            else:
                self._key.verify(signature, digest, _PADDING, _DIGESTED)  # type: ignore[call-arg]
        except (InvalidSignature, ValueError):
            return False
        return True

    def encoded(self) -> str:
        """The p= of its record: SubjectPublicKeyInfo of RSA, the bare 32 bytes of Ed25519."""
        if isinstance(self._key, Ed25519PublicKey):
            return b64encode(self._key.public_bytes_raw()).decode("ascii")
        der = self._key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return b64encode(der).decode("ascii")


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """Signs SHA-256 hashes. `algorithm` is RSA_SHA256 or ED25519_SHA256."""

    algorithm: str
    _key: rsa.RSAPrivateKey | Ed25519PrivateKey

    def sign(self, digest: bytes) -> bytes:
        # By name: to ask for the key's class goes through an abstract one, 6 us for every mail.
        if self.algorithm == ED25519_SHA256:
            return self._key.sign(digest)  # type: ignore[call-arg]
        return self._key.sign(digest, _PADDING, _DIGESTED)  # type: ignore[call-arg]

    def public(self) -> PublicKey:
        return PublicKey(self.algorithm, self._key.public_key())

    def pem(self) -> bytes:
        """PKCS#8 in PEM, not encrypted: what is stored is sealed by who stores it."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def __repr__(self) -> str:
        return f"PrivateKey({self.algorithm})"


def generate_rsa() -> PrivateKey:
    """A new key of RSA_NEW_BITS. Takes some tenths of a second of CPU."""
    return PrivateKey(RSA_SHA256, rsa.generate_private_key(_RSA_EXPONENT, RSA_NEW_BITS))


def generate_ed25519() -> PrivateKey:
    return PrivateKey(ED25519_SHA256, Ed25519PrivateKey.generate())


def load_private_key(pem: bytes) -> PrivateKey:
    """The key of an unencrypted PEM, PKCS#8 or the older PKCS#1. Raises BadKey."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey("not an unencrypted private key in PEM; PKCS#8 is expected") from None
    if isinstance(key, Ed25519PrivateKey):
        return PrivateKey(ED25519_SHA256, key)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BadKey("DKIM signs with RSA or Ed25519; this key is of another kind")
    if not RSA_LEAST_BITS <= key.key_size <= RSA_SIGN_BITS:
        raise BadKey(
            f"the RSA key has {key.key_size} bits; use {RSA_LEAST_BITS} to {RSA_SIGN_BITS}, "
            f"best {RSA_NEW_BITS} (RFC 8301)"
        )
    return PrivateKey(RSA_SHA256, key)


def load_public_key(key_type: str, data: bytes) -> PublicKey:
    """The key behind p= of a record with k=`key_type`, `rsa` or `ed25519`. Raises BadKey.

    RSA keys come as SubjectPublicKeyInfo, as nearly all have it, or as the bare RSAPublicKey that
    RFC 6376 section 3.6.1 has in its words.
    """
    try:
        if key_type == "ed25519":
            return PublicKey(ED25519_SHA256, Ed25519PublicKey.from_public_bytes(data))
        key = serialization.load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey(f"p= does not hold a public key of the kind {key_type}") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise BadKey("p= holds a public key that is not RSA")
    return PublicKey(RSA_SHA256, key)
