"""The checks of this machine: Python, memory, data folder, ports, certificate."""

import fcntl
import os
import platform
import resource
import shutil
import ssl
import sys
from collections.abc import Iterator
from pathlib import Path

from mailyard.core.errors import ConfigurationError
from mailyard.core.limits import MIB
from mailyard.fleet.checkup.finding import Finding, Grade, from_error
from mailyard.fleet.ports import check_free
from mailyard.storage import cluster
from mailyard.storage.unprivileged import choose_identity

_FILES_WANTED = 4_096
_FREE_DISK_BYTES = 1024 * MIB
_FREE_MEMORY_BYTES = 512 * MIB


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
        yield from_error("embedded PostgreSQL", error)
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
        return from_error(name, error)
    return Finding(name, Grade.GOOD, f"{host}:{port} is free")


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
