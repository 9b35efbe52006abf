"""A fault: one worker begins to leak memory.

Python loads `sitecustomize` from its path into every process before anything else. This one starts
a thread in the roles `worker`; when the file `now` appears beside it, the first of them takes the
file `pid` and keeps more and more. A worker that comes later finds it taken and stays well.
"""

from pathlib import Path

_SOURCE = """
import os, sys, threading, time
HERE = os.path.dirname(__file__)
def leak():
    while not os.path.exists(os.path.join(HERE, "now")):
        time.sleep(0.1)
    try:
        taken = os.open(os.path.join(HERE, "pid"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return
    os.write(taken, str(os.getpid()).encode())
    kept = []
    while True:
        kept.append(b"x" * {step_bytes})
        time.sleep(0.25)
words = sys.orig_argv
if "mailyard.cli.roles" in words and "worker" in words:
    threading.Thread(target=leak, daemon=True).start()
"""


def plant(folder: Path, bytes_per_s: int) -> None:
    """Put it into `folder`, which is to be the first of PYTHONPATH."""
    folder.mkdir()
    source = _SOURCE.replace("{step_bytes}", str(bytes_per_s // 4))
    (folder / "sitecustomize.py").write_text(source, "utf-8")


def begin(folder: Path) -> None:
    """Let a worker leak from now on."""
    (folder / "now").touch()


def victim(folder: Path) -> int | None:
    """The process that leaks; None before there is one."""
    try:
        return int((folder / "pid").read_text())
    except (OSError, ValueError):
        return None
