"""DANE against OpenSSL's own client: the same records, the same chains, the same verdict."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from time import sleep

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from mailyard.protocol.dane import usable, why_not
from mailyard.protocol.dns_answer import TlsaRecord

NOW = datetime.now(UTC)
HOST = "mx.example.org"

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None and os.environ.get("CI") != "true", reason="no openssl here"
)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def selected(self, selector: int) -> bytes:
        if selector == 0:
            return self.der
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def issue(name: str, issuer: Issued | None, *, host: str = "", days: int = 30) -> Issued:
    """An authority, or with `host` a server's certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=60))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=not host, path_length=None), critical=True)
    )
    if host:
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        builder = builder.add_extension(names, critical=False)
    return Issued(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


ROOT = issue("root", None)
MIDDLE = issue("middle", ROOT)
OTHER = issue("other", None)
CHAINS = {
    "right": (issue("leaf", MIDDLE, host=HOST), MIDDLE, ROOT),
    "other name": (issue("leaf", MIDDLE, host="else.example"), MIDDLE, ROOT),
    "expired": (issue("leaf", MIDDLE, host=HOST, days=-1), MIDDLE, ROOT),
    "without the root": (issue("leaf", MIDDLE, host=HOST), MIDDLE),
    "issued elsewhere": (issue("leaf", OTHER, host=HOST), MIDDLE, ROOT),
}


def record(usage: int, selector: int, matching: int, of: Issued) -> TlsaRecord:
    selected = of.selected(selector)
    data = sha256(selected).digest() if matching else selected
    return TlsaRecord(usage, selector, matching, data)


@contextmanager
def serving(chain: tuple[Issued, ...], folder: Path) -> Iterator[int]:
    """OpenSSL's server with `chain` on a loopback port."""
    key = chain[0].key.private_bytes(
        Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(key)
    (folder / "leaf.pem").write_bytes(chain[0].pem)
    (folder / "chain.pem").write_bytes(b"".join(one.pem for one in chain[1:]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet"]
    command += ["-key", "key.pem", "-cert", "leaf.pem", "-cert_chain", "chain.pem"]
    server = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            sleep(0.02)
        yield port
    finally:
        server.kill()
        server.wait()


def openssl_accepts(port: int, record: TlsaRecord) -> bool:
    rrdata = f"{record.usage} {record.selector} {record.matching} {record.data.hex()}"
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-brief"]
    command += ["-dane_tlsa_domain", HOST, "-dane_tlsa_rrdata", rrdata, "-dane_ee_no_namechecks"]
    command += ["-verify_return_error", "-no-CAfile", "-no-CApath"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert b"connect:errno" not in done.stderr
    return done.returncode == 0 and b"Verification: OK" in done.stderr


@pytest.mark.parametrize("kind", CHAINS)
def test_openssl_comes_to_the_same_verdict(kind: str, tmp_path: Path) -> None:
    chain = CHAINS[kind]
    ders = [one.der for one in chain]
    everybody = (chain[0], MIDDLE, ROOT, OTHER)
    records = [
        record(usage, selector, matching, of)
        for usage in (2, 3)
        for selector in (0, 1)
        for matching in (0, 1)
        for of in everybody
        # A key alone as an authority that is not sent: OpenSSL builds a chain from it, RFC 7671
        # section 5.2.2 asks servers to send the certificate, and so do we.
        if not (usage == 2 and selector == 1 and matching == 0 and of not in chain)
    ]
    with serving(chain, tmp_path) as port:
        theirs = [openssl_accepts(port, one) for one in records]
    ours = [why_not(usable([one]), ders, [HOST], datetime.now(UTC)) is None for one in records]
    differing = [
        f"{one.usage} {one.selector} {one.matching} {one.data[:99]!r}: OpenSSL says {theirs[index]}"
        for index, one in enumerate(records)
        if theirs[index] != ours[index]
    ]
    assert differing == []
    assert any(theirs)
