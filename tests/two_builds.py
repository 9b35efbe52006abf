"""Mailyard twice: the build of this tree, and the one that might come after it.

The next one is a copy of the package with one more migration, code that writes what the migration
has added, and a kind of job that this build does not know.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from running_platform import wait_until

from mailyard.storage.migrate import known_migrations
from mailyard.storage.unprivileged import die_with_parent

_MIGRATION = """
ALTER TABLE email ADD COLUMN build text;
ALTER TABLE inbox_message ADD COLUMN build text NOT NULL DEFAULT 'this';
ALTER TABLE queue_schedule ADD COLUMN note text NOT NULL DEFAULT '';
CREATE TABLE tidied (tick timestamptz NOT NULL, at timestamptz NOT NULL DEFAULT now());
"""
_TIDY = '''
"""What only the next build does: a job each second, tried once."""

from mailyard.queue.job import CLEANUP, NewJob
from mailyard.queue.schedule import Every, Schedule
from mailyard.queue.batch import Handler
from mailyard.storage.queries import Query

_DONE = Query("INSERT INTO tidied (tick) VALUES ($1::text::timestamptz)")


def schedule():
    return Schedule("tidy", Every(1), _job)


def _job(tick):
    payload = tick.isoformat().encode()
    return NewJob(queue=CLEANUP, kind="tidy", payload=payload, max_attempts=1)


def handler(database):
    async def handle(batch):
        for job in batch.jobs:
            await database.execute(_DONE, job.payload.decode())

    return Handler(kind="tidy", queue=CLEANUP, handle=handle)
'''
# (file, what stands there, what the next build has in its place)
_CHANGES = (
    ("__init__.py", '__version__ = "', '__version__ = "next-'),
    ("storage/sql/sending.sql", "actor_kind, actor)\n    SELECT *", "actor_kind, actor, build)\n"
     "    SELECT *, 'next'"),
    ("storage/sql/receiving.sql", "size_bytes,\n        attachments\n    )\n    SELECT ",
     "size_bytes,\n        attachments, build\n    )\n    SELECT "),
    ("storage/sql/receiving.sql", "size_bytes,\n           attachments\n    FROM asked LEFT",
     "size_bytes,\n           attachments, 'next'\n    FROM asked LEFT"),
    ("cli/serving/scheduler.py", "sweep.schedule(),", "sweep.schedule(), tidy.schedule(),"),
    ("cli/serving/scheduler.py", "import blob_sweep, sweep", "import blob_sweep, sweep, tidy"),
    ("cli/serving/worker.py", "        sweep.handler(", "        tidy.handler(database),\n"
     "        sweep.handler("),
    ("cli/serving/worker.py", "import blob_sweep, sweep", "import blob_sweep, sweep, tidy"),
)  # fmt: skip


def this_build() -> Path:
    """The folder that the package of this tree lies in."""
    spec = find_spec("mailyard")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1]


def next_build(folder: Path) -> Path:
    """Make it; the folder that its package lies in."""
    package = folder / "mailyard"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(this_build() / "mailyard", package, ignore=ignored)
    for name, here, there in _CHANGES:
        text = (package / name).read_text()
        assert text.count(here) == 1, f"{name} has changed: {here!r} stands there no more"
        (package / name).write_text(text.replace(here, there))
    (package / "fleet/tidy.py").write_text(_TIDY)
    number = len(known_migrations()) + 1
    (package / f"storage/migrations/{number:04d}_next.sql").write_text(_MIGRATION)
    return folder


class Process:
    """One role of one build."""

    def __init__(self, build: Path, role: str, environment: Mapping[str, str], log: Path) -> None:
        self.role = role
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mailyard.cli.main", role],
            env={**environment, "PYTHONPATH": str(build)},
            stderr=log.open("w"),
            preexec_fn=partial(die_with_parent, signal.SIGKILL, os.getpid()),
        )

    def until_ready(self) -> None:
        wait_until(
            lambda: self._process.poll() is not None or "ready" in self._log.read_text(), 240
        )
        assert self._process.poll() is None, self._log.read_text()

    def drain(self) -> None:
        """As a rolling upgrade ends it; it has to end by itself, and in good order."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(180)
        assert status == 0, f"{self.role} ended with {status}:\n{self._log.read_text()[-4000:]}"

    def end(self) -> None:
        self._process.kill()
        self._process.wait(20)


def migrate(build: Path, environment: Mapping[str, str]) -> str:
    """`mailyard migrate` of a build; what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "mailyard.cli.main", "migrate"],
        env={**environment, "PYTHONPATH": str(build)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
