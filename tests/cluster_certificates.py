"""Keys and certificates of a cluster of one's own."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Certificates:
    """An authority, a server certificate for loopback, and the keys that sign account tokens."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.authority = folder / "ca.crt"
        self.server, self.server_key = folder / "server.crt", folder / "server.key"
        self.accounts, self.accounts_key = folder / "sa.pub", folder / "sa.key"
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("a cluster of tests")
        made = _builder(name, name, key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.authority.write_bytes(_pem(made.sign(key, hashes.SHA256())))
        own = ec.generate_private_key(ec.SECP256R1())
        names = [
            x509.IPAddress(ip_address("127.0.0.1")),
            x509.DNSName("localhost"),
            x509.DNSName("kubernetes.default.svc"),
        ]
        signed = _builder(_name("kube-apiserver"), name, own).add_extension(
            x509.SubjectAlternativeName(names), critical=False
        )
        self.server.write_bytes(_pem(signed.sign(key, hashes.SHA256())))
        self.server_key.write_bytes(_private(own))
        accounts = ec.generate_private_key(ec.SECP256R1())
        self.accounts_key.write_bytes(_private(accounts))
        self.accounts.write_bytes(
            accounts.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
