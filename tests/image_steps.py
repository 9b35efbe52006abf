"""The Dockerfile without a container runtime: its steps in a folder, its result under a root that
nobody can write to."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UID = 10001


@dataclass(frozen=True)
class Step:
    """One instruction; `stage` counts from 0."""

    stage: int
    word: str
    rest: str


def read_steps(file: Path = ROOT / "Dockerfile") -> list[Step]:
    """The instructions, lines joined, comments dropped."""
    text = re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    steps, stage = [], -1
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        stage += word == "FROM"
        steps.append(Step(stage, word, re.sub(r"\s+", " ", rest).strip()))
    return steps


def last(steps: list[Step], word: str) -> str:
    return [step.rest for step in steps if step.word == word][-1]


def environment(steps: list[Step]) -> dict[str, str]:
    """What ENV of the last stage sets."""
    final = max(step.stage for step in steps)
    words = [
        word
        for step in steps
        if (step.stage, step.word) == (final, "ENV")
        for word in shlex.split(step.rest)
    ]
    return dict(word.split("=", 1) for word in words)


def ignored() -> list[str]:
    return [line for line in (ROOT / ".dockerignore").read_text().split() if line]


def build(steps: list[Step], folder: Path) -> Path:
    """Run the first stage's COPY and RUN with folders of `folder` in the places of /src and /opt,
    and the image's `python` being this one; where the program lies then."""
    source, made = folder / "src", folder / "opt" / "mailyard"
    source.mkdir(parents=True)
    made.parent.mkdir()
    programs = folder / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(Path(sys.executable).resolve())
    for step in (one for one in steps if one.stage == 0):
        if step.word == "COPY":
            _copy(step.rest.split(), source)
        elif step.word == "RUN":
            command = step.rest.replace("/opt/mailyard", str(made)).replace("--no-cache-dir", "")
            subprocess.run(
                ["sh", "-ec", command],
                cwd=source,
                env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": ""},
                check=True,
                umask=0o022,  # as a builder of images has it
                timeout=600,
            )
    return made


def _copy(words: list[str], into: Path) -> None:
    *names, target = words
    for name in names:
        origin = ROOT / name
        if origin.is_dir():
            leave = shutil.ignore_patterns("__pycache__", ".*_cache")
            shutil.copytree(origin, into / target, dirs_exist_ok=True, ignore=leave)
        else:
            shutil.copy(origin, into / target)


_INSIDE = """
mount --make-rprivate /
mount --rbind / {root}
mount -o remount,bind,ro {root}
for folder in {folders}; do mount --bind "$folder" "{root}$folder"; done
mount --bind {passwd} {root}/etc/passwd
exec /usr/sbin/chroot {root} setpriv --reuid {uid} --regid {uid} --clear-groups --no-new-privs \
    --bounding-set -all --pdeathsig KILL "$@"
"""


def read_only(folder: Path, writable: list[Path]) -> list[str]:
    """What a command is put behind to run it as the image's user, in a view of this machine where
    nothing can be written but `writable`, as with `docker run --read-only --tmpfs`."""
    root = folder / "root"
    root.mkdir(exist_ok=True)
    for one in writable:
        os.chown(one, UID, UID)
    passwd = folder / "passwd"  # with what `useradd` of the last stage adds
    passwd.write_text(
        Path("/etc/passwd").read_text() + f"mailyard:x:{UID}:{UID}::/data:/usr/sbin/nologin\n"
    )
    folders = " ".join(map(str, writable))
    script = _INSIDE.format(root=root, uid=UID, passwd=passwd, folders=folders)
    return ["unshare", "--mount", "sh", "-ec", script, "sh"]


def can_isolate() -> bool:
    """Whether this machine lets us have mounts of our own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return done.returncode == 0


def exec_form(rest: str) -> list[str]:
    """The words of `CMD ["a", "b"]`, options before it dropped."""
    return list(json.loads(rest[rest.index("[") :]))


def run(command: list[str], env: Mapping[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=dict(env), cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )
