"""The checks of `mailyard doctor`, one function each: what was found, and what to do about it."""

import asyncio
import fcntl
import os
import platform
import resource
import shutil
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import asyncpg

from mailyard.core.errors import ConfigurationError, MailyardError
from mailyard.core.limits import MIB
from mailyard.fleet.ports import check_free
from mailyard.storage import cluster
from mailyard.storage.blob import BlobStore, try_out
from mailyard.storage.database import AWAY
from mailyard.storage.migrate import standing
from mailyard.storage.queries import load
from mailyard.storage.unprivileged import choose_identity

QUERIES = load("process")
OLDEST_SERVER = 150_000  # server_version_num of PostgreSQL 15
_FILES_WANTED = 4_096
_FREE_DISK_BYTES = 1024 * MIB
_FREE_MEMORY_BYTES = 512 * MIB
_CLOCK_SKEW_S = 2.0
_BLOBS_S = 20.0


class Grade(Enum):
    """`bad` stops the platform or breaks a promise; `warn` is worth knowing."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `fix` says what to do, and is empty when nothing is."""

    check: str
    grade: Grade
    found: str
    fix: str = ""


def _from_error(check: str, error: MailyardError) -> Finding:
    return Finding(check, Grade.BAD, error.message)


def check_machine() -> Iterator[Finding]:
    """Python, the system, file descriptors, memory."""
    if sys.platform != "linux":
        yield Finding(
            "system", Grade.BAD, platform.platform(), "Mailyard runs on Linux: use a container"
        )
    else:
        yield Finding(
            "system", Grade.GOOD, f"{platform.release()}, Python {sys.version.split()[0]}"
        )
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = hard in (resource.RLIM_INFINITY,) or hard >= _FILES_WANTED
    yield Finding(
        "open files",
        Grade.GOOD if enough else Grade.WARN,
        f"at most {hard}",
        "" if enough else f"raise it: ulimit -Hn {_FILES_WANTED}, or LimitNOFILE= in systemd",
    )
    available = _available_memory_bytes()
    yield Finding(
        "memory",
        Grade.GOOD if available >= _FREE_MEMORY_BYTES else Grade.WARN,
        f"{available // MIB} MB available",
        "" if available >= _FREE_MEMORY_BYTES else "Mailyard at rest needs about 400 MB",
    )


def _available_memory_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def platform_runs(data: Path) -> bool:
    """Whether a Mailyard holds the data folder now."""
    try:
        descriptor = os.open(data / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_seen(place: Path) -> bool:
    """Whether it is there, as far as this user may look."""
    try:
        return place.exists()
    except OSError:  # a folder above it may not be looked into
        return False


def check_data(data: Path) -> Iterator[Finding]:
    """The data folder and its disk."""
    place = data
    while not _is_seen(place):
        place = place.parent
    if not place.is_dir():
        yield Finding(
            "data folder",
            Grade.BAD,
            f"{data}: {place} is a file",
            "name a folder in MAILYARD_DATA",
        )
    elif not os.access(place, os.W_OK | os.X_OK):
        yield Finding(
            "data folder",
            Grade.BAD,
            f"{data}: no permission to write in {place}",
            "give it to this user, or name another folder in MAILYARD_DATA",
        )
    else:
        state = "in use by a running Mailyard" if platform_runs(data) else "free to use"
        yield Finding("data folder", Grade.GOOD, f"{data}, {state}")
    free = shutil.disk_usage(place).free
    yield Finding(
        "disk",
        Grade.GOOD if free >= _FREE_DISK_BYTES else Grade.WARN,
        f"{free // MIB} MB free",
        "" if free >= _FREE_DISK_BYTES else "free some space: mail is refused when it is full",
    )


def check_embedded(data: Path) -> Iterator[Finding]:
    """The embedded PostgreSQL's programs, who runs them, and the version of the data."""
    try:
        programs = cluster.binaries()
        identity = choose_identity(programs / "postgres", data / "postgres")
        made = cluster.check_version(data / "postgres")
    except ConfigurationError as error:
        yield _from_error("embedded PostgreSQL", error)
        return
    except OSError as error:  # the folder is none, or may not be looked into
        yield Finding("embedded PostgreSQL", Grade.BAD, f"{error.filename}: {error.strerror}")
        return
    state = "data present" if made else "made at the first start"
    how = {"self": "as you", "user": "by setuid", "namespace": "in a user namespace"}[identity.way]
    yield Finding(
        "embedded PostgreSQL",
        Grade.GOOD,
        f"version {cluster.MAJOR}, {state}, runs as {identity.name} ({how})",
    )


def check_port(name: str, host: str, port: int, setting: str, *, running: bool) -> Finding:
    """Whether a port can be had, or is ours already."""
    try:
        check_free(host, port, setting)
    except ConfigurationError as error:
        if running:
            return Finding(name, Grade.GOOD, f"{host}:{port}, the running Mailyard listens there")
        return _from_error(name, error)
    return Finding(name, Grade.GOOD, f"{host}:{port} is free")


async def check_database(direct_url: str, check_connections: Callable[[int], str]) -> list[Finding]:
    """A database that runs: reachable, new enough, safe, migrated, with room for our connections.

    `check_connections` gets the server's limit and says what is used of it, or raises
    ConfigurationError.
    """
    try:
        connection = await asyncpg.connect(direct_url, timeout=5.0)
    except (*AWAY, asyncpg.PostgresError) as error:
        return [
            Finding(
                "database",
                Grade.BAD,
                f"does not answer: {error}",
                "start it, or correct MAILYARD_DATABASE_URL",
            )
        ]
    try:
        facts = await connection.fetchrow(QUERIES.server_facts)
        limit = await connection.fetchval(QUERIES.server_limit)
    finally:
        await connection.close()
    assert facts is not None, "a SELECT without FROM has one row"
    findings = list(_judge_server(facts))
    skew_s = abs((datetime.now(UTC) - facts["now"]).total_seconds())
    findings.append(
        Finding(
            "clock",
            Grade.GOOD if skew_s < _CLOCK_SKEW_S else Grade.WARN,
            f"{skew_s:.1f} s from the database's",
            "" if skew_s < _CLOCK_SKEW_S else "let both machines follow NTP",
        )
    )
    try:
        used = check_connections(limit)
        found = f"{used}; the server gives {limit}"
        findings.append(Finding("connections", Grade.GOOD, found))
    except ConfigurationError as error:
        findings.append(_from_error("connections", error))
    findings.append(await _check_schema(direct_url))
    return findings


def _judge_server(facts: asyncpg.Record) -> Iterator[Finding]:
    major = facts["version"] // 10_000
    if facts["version"] < OLDEST_SERVER:
        yield Finding("database", Grade.BAD, f"PostgreSQL {major}", "15 or newer is needed")
    elif facts["replica"]:
        yield Finding("database", Grade.BAD, "a replica", "name the primary")
    else:
        yield Finding("database", Grade.GOOD, f"PostgreSQL {major}")
    if not (facts["fsync"] and facts["synchronous_commit"]):
        yield Finding(
            "durability",
            Grade.BAD,
            "fsync or synchronous_commit is off",
            "turn both on: without them a 250 is no promise",
        )
    if not facts["may_create"]:
        yield Finding(
            "permission",
            Grade.BAD,
            "the database user may not create tables",
            "GRANT CREATE ON SCHEMA public TO the user",
        )


async def _check_schema(direct_url: str) -> Finding:
    try:
        found = await standing(direct_url)
    except MailyardError as error:
        return _from_error("schema", error)
    if found.missing:
        lacks = f"lacks {', '.join(found.missing)}"
        return Finding("schema", Grade.WARN, lacks, "mailyard migrate")
    if found.newer:
        return Finding(
            "schema",
            Grade.WARN,
            f"newer than this version by {', '.join(found.newer)}, which it can work with",
            "finish the upgrade, or roll the other processes back too",
        )
    return Finding("schema", Grade.GOOD, "up to date")


async def check_blobs(name: str, setting: str, store: BlobStore) -> Finding:
    """A store takes, gives back and deletes a blob."""
    try:
        async with asyncio.timeout(_BLOBS_S):
            await try_out(store)
    except (MailyardError, TimeoutError) as error:
        told = error.message if isinstance(error, MailyardError) else "it does not answer"
        return Finding(
            name,
            Grade.BAD,
            told,
            f"{setting} must name a store that is there and lets us in; large mail is deferred "
            "until it does",
        )
    return Finding(name, Grade.GOOD, "takes, gives back and deletes a blob")


def check_certificate(certificate: Path, key: Path) -> Finding:
    """The SMTP server's own certificate and key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        return Finding(
            "certificate",
            Grade.BAD,
            f"{certificate}: {error}",
            "MAILYARD_TLS_CERT and MAILYARD_TLS_KEY are PEM files that belong together",
        )
    return Finding("certificate", Grade.GOOD, str(certificate))
