"""`mailyard restore`: the database as it was at an instant, from the backup."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import asyncpg
import typer

from mailyard.app.backup import master_keys_of, store_of, store_url
from mailyard.core.errors import ConfigurationError, InvalidInput
from mailyard.settings import Settings, load_settings
from mailyard.storage.backup.recover import Restored, restore
from mailyard.storage.backup.seal import sealer_of
from mailyard.storage.queries import load

app = typer.Typer(add_completion=False)
QUERIES = load("queue")
# What makes mail leave. Paused, nothing that had left after the instant leaves a second time.
OUTGOING = ("email-send", "email-bulk")


@app.command("restore")
def main(
    at: Annotated[
        str, typer.Option(help="The instant, like 2026-03-01T14:30:00Z; the newest when left out.")
    ] = "",
    into: Annotated[
        Path | None, typer.Option(help="Another data folder than MAILYARD_DATA.")
    ] = None,
    send: Annotated[
        bool, typer.Option(help="Send at once; else sending waits until you resume it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make the database as it was at an instant, in a data folder that has none.

    Sending is paused in it: mail that left after that instant is queued again there, and would
    leave a second time. Look, then `mailyard queue resume email-send` and `… email-bulk`.

    Example: MAILYARD_BACKUP=file:///srv/backup mailyard restore --at 2026-03-01T14:30:00Z
    """
    settings = load_settings()
    if not settings.backup:
        raise ConfigurationError("MAILYARD_BACKUP is not set; name the store to restore from")
    data = (into or settings.data).absolute()
    restored = asyncio.run(_restore(settings, data, _moment(at), send=send, quiet=as_json))
    if as_json:
        print(json.dumps(_shown(restored, data)))
        return
    last = restored.replayed_at.isoformat() if restored.replayed_at else "the base backup's end"
    print(f"restored to {last} in {restored.seconds:.1f} s, in {data}")
    if restored.short:
        print("the log in the store ends there, before the instant that was asked for")
    if not send:
        print(
            "sending is paused: mailyard queue resume email-send; mailyard queue resume email-bulk"
        )
    print("next: mailyard up")


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"--at is {text[:40]!r}; allowed is an instant like 2026-03-01T14:30:00Z"
        ) from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


async def _restore(
    settings: Settings, data: Path, at: datetime | None, *, send: bool, quiet: bool
) -> Restored:
    store = store_of(store_url(settings))
    sealer = await sealer_of(
        store, settings.backup_passphrase, lambda: master_keys_of(settings, make=False)
    )
    return await restore(
        store,
        sealer,
        data,
        at=at,
        say=(lambda _: None) if quiet else print,
        afterwards=None if send else _pause,
    )


async def _pause(connection: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[str]:
    for queue in OUTGOING:
        await connection.execute(QUERIES.pause, queue, True)
        yield f"{queue} is paused"


def _shown(restored: Restored, data: Path) -> dict[str, object]:
    return {
        "data": str(data),
        "base": restored.base.id,
        "segments": restored.segments,
        "replayed_at": restored.replayed_at.isoformat() if restored.replayed_at else None,
        "short": restored.short,
        "seconds": round(restored.seconds, 2),
    }
