"""Running PostgreSQL, which refuses to be root, when Mailyard was started by root.

Two ways, tried in this order. `user`: the child becomes a system user by setuid; the binaries and
the data must be reachable for it, and no folder's permissions are ever loosened to make them so.
`namespace`: the child enters a user namespace of its own in which root's id appears as that user's;
files stay root's, so it works below a folder that only root may enter, and the child holds none of
root's capabilities outside the namespace.
"""

import ctypes
import os
import pwd
import signal
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mailyard.core.errors import ConfigurationError

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000
_USERS = ("mailyard", "postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a child runs as. `way` is self, user or namespace; `owner` owns its files, seen here."""

    way: str
    uid: int
    gid: int
    name: str

    @property
    def owner(self) -> tuple[int, int]:
        return (self.uid, self.gid) if self.way == "user" else (os.geteuid(), os.getegid())

    def enter(self, death_signal: int = signal.SIGKILL) -> Callable[[], None]:
        """What a forked child calls before exec: become this identity, die with the parent.

        The death signal is set last, because the kernel forgets it when credentials change.
        """
        parent = os.getpid()

        def become() -> None:
            if self.way == "user":
                os.setgroups([])
                os.setresgid(self.gid, self.gid, self.gid)
                os.setresuid(self.uid, self.uid, self.uid)
            elif self.way == "namespace":
                _enter_namespace(self.uid, self.gid)
            die_with_parent(death_signal, parent)

        return become


def die_with_parent(death_signal: int, parent: int) -> None:
    """Ask the kernel to send `death_signal` here when `parent` ends; ends at once if it has."""
    if _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def _enter_namespace(uid: int, gid: int) -> None:
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    if _LIBC.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{uid} {outer_uid} 1"),
        ("gid_map", f"{gid} {outer_gid} 1"),
    ):
        Path(f"/proc/self/{name}").write_text(text)


def _named(uid: int) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        raise ConfigurationError(
            f"the user {uid} has no name on this machine, and PostgreSQL runs for nobody without "
            "one: give it an entry in /etc/passwd, or name a database in MAILYARD_DATABASE_URL"
        ) from None


def choose_identity(binary: Path, data: Path) -> Identity:
    """Who runs `binary` on `data` (which need not exist yet). Raises ConfigurationError if nobody.

    A system user that already owns `data` is preferred, so that a second start changes no owner.
    """
    if os.geteuid() != 0:
        me = _named(os.geteuid())
        return Identity("self", me.pw_uid, me.pw_gid, me.pw_name)
    user = _system_user(data)
    candidates = [Identity("namespace", user.pw_uid, user.pw_gid, user.pw_name)]
    if _reachable(data.parent, user.pw_uid):
        candidates.insert(0, Identity("user", user.pw_uid, user.pw_gid, user.pw_name))
    for identity in candidates:
        if _can_run(identity, binary):
            return identity
    raise ConfigurationError(
        f"PostgreSQL does not run as root, and the user {user.pw_name!r} cannot reach both "
        f"{binary} and {data.parent}, and user namespaces are not allowed here; start Mailyard as "
        "an ordinary user, or keep program and MAILYARD_DATA below folders that others may enter "
        "(such as /opt/mailyard and /var/lib/mailyard)"
    )


def _system_user(data: Path) -> pwd.struct_passwd:
    try:
        owner = data.stat().st_uid
        if owner != 0:
            return pwd.getpwuid(owner)
    except (FileNotFoundError, KeyError):
        pass  # no data yet, or the owner is no user of this machine
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise ConfigurationError(
        "PostgreSQL does not run as root and this machine has no ordinary system user; "
        "add one: useradd --system mailyard"
    )


def _reachable(folder: Path, uid: int) -> bool:
    """Whether `uid` may enter `folder` and all above it, by owner's or everybody's permission.

    What does not exist yet will be made so that it may.
    """
    while not folder.exists():
        folder = folder.parent
    for step in (folder.resolve(), *folder.resolve().parents):
        found = step.stat()
        needed = stat.S_IXUSR if found.st_uid == uid else stat.S_IXOTH
        if not found.st_mode & needed:
            return False
    return True


def _can_run(identity: Identity, binary: Path) -> bool:
    """Whether the binary and all its libraries can really be executed so."""
    try:
        done = subprocess.run(  # the child only becomes the user and prints its version
            [str(binary), "--version"],
            preexec_fn=identity.enter(),
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=20.0,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
