"""Connections to a real listener with TLS and sign-in, by the settings that an operator has."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from secrets import token_hex

import pytest
from contract.conftest import emptied
from contract.queue_words import Q, job, payloads
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kafka_cluster import PASSWORD, USER, KafkaCluster

from mailyard.app.foundation import kafka_options
from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.errors import Unavailable
from mailyard.queue.engines.kafka.claiming import LoggedJob
from mailyard.queue.engines.kafka.engine import KafkaEngine
from mailyard.queue.engines.kafka.topics import Topics
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import LeasedJob
from mailyard.settings.load import load_settings

LANES = ("email-send", "email-events")
MECHANISMS = ("plain", "scram-sha-256", "scram-sha-512")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the broker's key and certificate, and the certificate alone."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kafka of the tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (folder / "broker.pem").write_bytes(secret + pem)
    (folder / "ca.pem").write_bytes(pem)
    return folder


@pytest.fixture(scope="module")
def guarded(authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """One broker that talks to nobody who has not signed in."""
    cluster = KafkaCluster(
        tmp_path_factory.mktemp("guarded"), 1, certificate=authority / "broker.pem"
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def told(authority: Path, guarded: KafkaCluster) -> dict[str, str]:
    """The settings, as the environment has them; the mechanism is missing."""
    return {
        "MAILYARD_QUEUE_ENGINE": "kafka",
        "MAILYARD_KAFKA_SERVERS": guarded.secure_servers,
        "MAILYARD_KAFKA_LANES": ",".join(LANES),
        "MAILYARD_KAFKA_PARTITIONS": "email-send=3,email-events=2",
        "MAILYARD_KAFKA_PREFIX": f"s{token_hex(4)}.",
        "MAILYARD_KAFKA_TLS": "true",
        "MAILYARD_KAFKA_CA": str(authority / "ca.pem"),
        "MAILYARD_KAFKA_USER": USER,
        "MAILYARD_KAFKA_PASSWORD": PASSWORD,
    }


def provision(told: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """`mailyard queue provision`."""
    command = [str(Path(sys.executable).with_name("mailyard")), "queue", "provision", "--json"]
    return subprocess.run(command, env=os.environ | told, capture_output=True, text=True)


@pytest.mark.parametrize("mechanism", MECHANISMS)
async def test_jobs_travel_over_tls_for_who_has_signed_in(
    told: dict[str, str],
    mechanism: str,
    shared_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**told, "MAILYARD_KAFKA_SASL": mechanism}.items():
        monkeypatch.setenv(name, value)
    options = kafka_options(load_settings())
    await Topics(options).provision(dict.fromkeys(LANES, 2))
    async with emptied(shared_database_url) as database:
        bus = MemoryBus()
        engine = KafkaEngine(
            postgres=PostgresEngine(database=database, bus=bus),
            database=database,
            bus=bus,
            options=options,
            lanes=LANES,
        )
        try:
            await engine.enqueue([job("straight")])
            async with database.transaction() as tx:
                await engine.enqueue([job("by the outbox")], tx)
            leased: list[LeasedJob] = []
            while len(leased) < 2:
                got = await engine.lease([Q], 10, 120.0, "w")
                assert got, "nothing came"
                leased += got
            assert sorted(payloads(leased)) == ["by the outbox", "straight"]
            assert all(isinstance(one, LoggedJob) for one in leased)
            assert len(await engine.complete(leased)) == 2
        finally:
            await engine.close()


def test_provisioning_twice_changes_nothing_and_growing_only_adds(told: dict[str, str]) -> None:
    told |= {"MAILYARD_KAFKA_SASL": "scram-sha-512"}
    first, second = provision(told), provision(told)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout.count('"made"') == 2
    assert second.stdout.count('"there"') == 2
    told |= {"MAILYARD_KAFKA_PARTITIONS": "email-send=5,email-events=1"}
    grown = provision(told)
    assert '"grown from 3"' in grown.stdout
    assert '"there"' in grown.stdout, "a topic never gets fewer partitions"


@pytest.mark.parametrize(
    "wrong",
    [
        {"MAILYARD_KAFKA_PASSWORD": "another"},
        {"MAILYARD_KAFKA_USER": "nobody"},
        {"MAILYARD_KAFKA_CA": ""},
    ],
    ids=["password", "user", "authority"],
)
async def test_who_is_not_let_in_is_told_so(
    told: dict[str, str], wrong: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**told, "MAILYARD_KAFKA_SASL": "scram-sha-512", **wrong}.items():
        monkeypatch.setenv(name, value)
    options = kafka_options(load_settings())
    with pytest.raises(Unavailable, match="Kafka does not answer"):
        await Topics(replace(options, request_s=2.0)).describe()
