"""TLS contexts, and a certificate of our own for a server that was given none.

The self-made certificate lets any peer encrypt opportunistically from the first start; nobody can
verify it, which is what opportunistic SMTP expects (RFC 7435). Settings replace it.
"""

import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mailyard.core.errors import ConfigurationError

_VALID_DAYS = 3650
_RENEW_BEFORE_DAYS = 30


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context for listeners. TLS 1.2 or later. Raises ConfigurationError naming the files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"cannot use the certificate {certificate} with the key {key}: {error}; "
            "both must be PEM files that belong together"
        ) from None
    return context


def client_context(*, verify: bool) -> ssl.SSLContext:
    """A context for connecting. Without `verify` any certificate will do: encryption against
    listeners-in, as opportunistic STARTTLS gives it."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def ensure_certificate(folder: Path, hostname: str) -> tuple[Path, Path]:
    """(certificate, key) in `folder`, made when absent, for another host name, or about to expire.

    Several processes may call this at once: each file appears whole, and the key and certificate
    of one maker replace those of another together, since both live in one file.
    """
    path = folder / "smtp-self-made.pem"
    if not _usable(path, hostname):
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".smtp-self-made.{os.getpid()}.pem"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(_make_pem(hostname))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    return path, path


def _usable(path: Path, hostname: str) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    last_day = certificate.not_valid_after_utc - timedelta(days=_RENEW_BEFORE_DAYS)
    return hostname in names.get_values_for_type(x509.DNSName) and datetime.now(UTC) < last_day


def _make_pem(hostname: str) -> bytes:
    """A fresh P-256 key and its self-signed certificate, key first."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return key_pem + certificate.public_bytes(serialization.Encoding.PEM)
