"""`mailyard backup`: take one, list them, restore one on trial."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from mailyard.app import Application
from mailyard.app.backup import backups_of
from mailyard.core.errors import ConfigurationError
from mailyard.core.limits import MIB
from mailyard.settings import load_settings
from mailyard.storage.backup.keeper import Backups
from mailyard.storage.backup.manifest import Base
from mailyard.storage.backup.recover import Restored

app = typer.Typer(add_completion=False, no_args_is_help=False)
Done = TypeVar("Done")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object.")]


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Backups of the whole installation, to the store that MAILYARD_BACKUP names.

    With the setting the scheduler does it all by itself: it streams the write-ahead log there,
    takes a base backup every day and restores one on trial every week. Without a sub-command:
    take a base backup now.

    Example: MAILYARD_BACKUP=file:///srv/backup mailyard backup
    """
    if context.invoked_subcommand is None:
        take(as_json=False)


@app.command()
def take(as_json: AsJson = False) -> None:
    """Take a base backup now, of the running platform.

    Example: mailyard backup take
    """
    base = asyncio.run(_with(lambda backups: backups.take()))
    if as_json:
        print(json.dumps(_shown(base)))
    else:
        print(
            f"base backup {base.id}: {base.size_bytes // MIB} MB, stored as "
            f"{base.stored_bytes / MIB:.1f} MB in {_seconds(base):.1f} s"
        )


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the base backups that a restore can begin with, oldest first.

    Example: mailyard backup list
    """
    bases = asyncio.run(_with(lambda backups: backups.bases(), database=False))
    if as_json:
        print(json.dumps({"items": [_shown(base) for base in bases]}))
        return
    for base in bases:
        print(
            f"{base.finished_at.isoformat(timespec='seconds')}  {base.id}  "
            f"{base.stored_bytes / MIB:8.1f} MB  PostgreSQL {base.major}"
        )
    if not bases:
        print("no base backup yet: mailyard backup take")


@app.command("try")
def try_(as_json: AsJson = False) -> None:
    """Restore the newest state into a folder of its own, look at it, and remove it again.

    Example: mailyard backup try
    """
    asked_at = datetime.now(UTC)
    restored: Restored = asyncio.run(
        _with(lambda backups: backups.try_restore(lambda line: _say(line, quiet=as_json)))
    )
    at = restored.replayed_at
    lost_s = None if at is None else max(0.0, (asked_at - at).total_seconds())
    if as_json:
        print(
            json.dumps(
                {
                    "base": restored.base.id,
                    "segments": restored.segments,
                    "replayed_at": at and at.isoformat(),
                    "rpo_s": lost_s and round(lost_s, 1),
                    "seconds": round(restored.seconds, 2),
                }
            )
        )
        return
    print(f"it can be restored: done in {restored.seconds:.1f} s (RTO), and removed again")
    if lost_s is not None:
        print(f"the newest commit in it is {lost_s:.1f} s older than the question (RPO, at most)")


async def _with(work: Callable[[Backups], Awaitable[Done]], *, database: bool = True) -> Done:
    settings = load_settings()
    if not settings.backup:
        raise ConfigurationError(
            "MAILYARD_BACKUP is not set; name where backups go, like file:///srv/backup"
        )
    application = Application(settings)
    if database:
        await application.database.open()
    try:
        return await work(backups_of(application))
    finally:
        await application.database.close()


def _say(line: str, *, quiet: bool) -> None:
    if not quiet:
        print(line)


def _seconds(base: Base) -> float:
    return (base.finished_at - base.started_at).total_seconds()


def _shown(base: Base) -> dict[str, object]:
    return {
        "id": base.id,
        "finished_at": base.finished_at.isoformat(),
        "size_bytes": base.size_bytes,
        "stored_bytes": base.stored_bytes,
        "seconds": round(_seconds(base), 2),
        "major": base.major,
        "schema": base.schema,
        "first_wal": base.first_wal,
    }
