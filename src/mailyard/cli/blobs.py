"""`mailyard blobs`: the store for what is too large for a row: made, tried, moved."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from mailyard.app.foundation import blob_store
from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, progress_console, say
from mailyard.core.errors import ConfigurationError, InvalidInput
from mailyard.settings import load_settings
from mailyard.settings.kinds import BLOBS
from mailyard.storage.blob import BlobStore, parse_name
from mailyard.storage.blob_copy import AT_ONCE, BlobCopy, Copied, count

app = typer.Typer(add_completion=False, no_args_is_help=True)
Answer = TypeVar("Answer")

_Store = Annotated[
    str,
    typer.Argument(
        help="An address as MAILYARD_BLOBS has it; `now` and `before` are those of the settings."
    ),
]


@app.command()
def prepare(store: _Store = "now", as_json: AsJson = False) -> None:
    """Make a folder of blobs, or see that a bucket takes, gives back and deletes one.

    Example: mailyard blobs prepare file:///srv/mailyard/blobs
    """

    async def work(opened: BlobStore) -> None:
        await opened.prepare()

    _with(store, work)
    say({"prepared": _shown(store)}, as_json, f"{_shown(store)} takes blobs")


@app.command()
def status(store: _Store = "now", as_json: AsJson = False) -> None:
    """Count what a store holds, by retention class. It lists the whole store.

    Example: mailyard blobs status
    """
    blobs: Counter[str] = Counter()
    size_bytes: Counter[str] = Counter()

    async def work(opened: BlobStore) -> None:
        async for run in opened.list():
            for one in run:
                name = parse_name(one.key)
                life = "other" if name is None else one.key.split("/")[1]
                blobs[life] += 1
                size_bytes[life] += one.size_bytes

    _with(store, work)
    classes = {life: {"blobs": blobs[life], "bytes": size_bytes[life]} for life in sorted(blobs)}
    lines = [
        f"{life:<8} {blobs[life]:>12,} blobs {size_bytes[life]:>18,} bytes" for life in classes
    ]
    say({"store": _shown(store), "classes": classes}, as_json, "\n".join(lines) or "it is empty")


@app.command()
def copy(
    source: _Store,
    target: _Store,
    at_once: Annotated[int, typer.Option(min=1, max=256, help="Blobs at a time.")] = AT_ONCE,
    read_back: Annotated[
        bool, typer.Option(help="Read each blob back out of the new store and compare.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Copy one store into another while both are in use. What is there is passed over: after a
    break, or for what has come since, call it again. Exit status 1 when blobs were damaged.

    First name the new store in MAILYARD_BLOBS and the old one in MAILYARD_BLOBS_BEFORE, and restart
    (one process after the other is fine); then copy; when a second call finds nothing to do, leave
    MAILYARD_BLOBS_BEFORE out.

    Example: mailyard blobs copy before now
    """
    if _address(source) == _address(target):
        raise InvalidInput("a store is not copied into itself")

    async def work(old: BlobStore, new: BlobStore) -> Copied:
        with _bars(shown=not as_json) as bars:
            counting = bars.add_task("Counting", total=None)
            blobs, size_bytes = await count(old)
            bars.remove_task(counting)
            task = bars.add_task(f"{blobs:,} blobs", total=max(1, blobs))
            copying = BlobCopy(old, new, at_once=at_once, read_back=read_back)

            def told(copied: Copied) -> None:
                text = f"{copied.seen:,} of {blobs:,} blobs ({size_bytes:,} bytes)"
                bars.update(task, completed=copied.seen, description=text)

            return await copying.run(told)

    copied = asyncio.run(_with_both(source, target, work))
    answer = {
        "copied": copied.blobs,
        "bytes": copied.bytes,
        "already_there": copied.already_there,
        "deleted_meanwhile": copied.deleted_meanwhile,
        "failed": copied.failed,
        "failures": copied.failures,
    }
    told = (
        f"{copied.blobs:,} blobs copied ({copied.bytes:,} bytes), {copied.already_there:,} were "
        f"there, {copied.deleted_meanwhile:,} were deleted meanwhile, {copied.failed:,} failed"
    )
    say(answer, as_json, "\n".join([told, *copied.failures]))
    if copied.failed:
        raise typer.Exit(exit_code.REFUSED)


def _with(store: str, work: Callable[[BlobStore], Awaitable[None]]) -> None:
    async def run() -> None:
        opened = blob_store(_address(store))
        try:
            await work(opened)
        finally:
            await opened.close()

    asyncio.run(run())


async def _with_both(
    source: str, target: str, work: Callable[[BlobStore, BlobStore], Awaitable[Answer]]
) -> Answer:
    old, new = blob_store(_address(source)), blob_store(_address(target))
    try:
        return await work(old, new)
    finally:
        await old.close()
        await new.close()


def _address(store: str) -> str:
    """The address that was meant. Raises InvalidInput, ConfigurationError."""
    if store in ("now", "before"):
        settings = load_settings()
        url = settings.blobs if store == "now" else settings.blobs_before
        if not url:
            name = "MAILYARD_BLOBS" if store == "now" else "MAILYARD_BLOBS_BEFORE"
            raise ConfigurationError(f"{name} names no store")
        return url
    try:
        return str(BLOBS.parse(store))
    except ValueError:
        raise InvalidInput(f"that is no store; allowed is {BLOBS.allowed}") from None


def _shown(store: str) -> str:
    """Its address without secrets."""
    parts = urlsplit(_address(store))
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _bars(*, shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=progress_console(),
        disable=not shown,
    )
