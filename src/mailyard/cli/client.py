"""What the commands for people share: the API of the settings, its key, and how answers are shown.

The key is MAILYARD_API_KEY, or what its owner has put into `api-key` of the data folder: the first
start prints a key and writes it nowhere.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from mailyard.core.errors import ConfigurationError
from mailyard.proving.client import ApiClient
from mailyard.settings import Settings, load_settings

KEY_FILE = "api-key"

AsJson = Annotated[
    bool, typer.Option("--json", help="For programs: the last line is one JSON object.")
]
T = TypeVar("T")


def api_key(settings: Settings) -> str:
    """The key that commands use. Raises ConfigurationError when there is none."""
    if settings.api_key:
        return _checked(settings.api_key, "MAILYARD_API_KEY")
    path = settings.data / KEY_FILE
    try:
        return _checked(path.read_text("utf-8", "replace").strip(), str(path))
    except OSError:
        raise ConfigurationError(
            f"an API key is needed: set MAILYARD_API_KEY (the first start printed one; "
            f"`mailyard key create` makes another), or put it into {path}"
        ) from None


def _checked(key: str, where: str) -> str:
    """A key that can stand in a request. Raises ConfigurationError, which does not show it."""
    if not key.isascii() or not key.isprintable() or " " in key or not key:
        raise ConfigurationError(
            f"{where} is no API key: one is a single word like my_… of letters and digits, as "
            "`mailyard key create` prints it"
        )
    return key


def ask(work: Callable[[ApiClient], Awaitable[T]]) -> T:
    """Run `work` with a client of the settings' API. Raises ApiProblem, Unavailable."""

    async def run() -> T:
        settings = load_settings()
        client = ApiClient(settings.api_url, api_key(settings))
        try:
            return await work(client)
        finally:
            await client.close()

    return asyncio.run(run())


def say(answer: Any, as_json: bool, text: str) -> None:
    """The answer as one JSON line, or as `text` for people."""
    print(msgspec.json.encode(answer).decode() if as_json else text)


def say_rows(
    rows: Sequence[Mapping[str, Any]], as_json: bool, columns: Iterable[tuple[str, str]]
) -> None:
    """Rows as one JSON object `{"items": […]}`, or as a table with `columns` (title, key)."""
    if as_json:
        print(msgspec.json.encode({"items": rows}).decode())
        return
    columns = list(columns)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, _ in columns:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for _, key in columns))
    console().print(table)


def console() -> Console:
    """Where people read; plain when it is no terminal."""
    return Console(highlight=False, markup=False, soft_wrap=not sys.stdout.isatty())


def progress_console() -> Console:
    """Where progress bars go: standard error, so that standard output stays for answers."""
    return Console(stderr=True)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
