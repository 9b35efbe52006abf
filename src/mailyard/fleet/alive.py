"""A file that is touched for as long as this process's event loop turns.

For whoever watches a process that has no port to ask: a liveness probe looks how old the file is.
It says nothing of the database, for a restart would not bring that back.
"""

import asyncio
from contextlib import suppress
from pathlib import Path

import structlog

EVERY_S = 5.0
_LOG = structlog.get_logger(__name__)


async def touch(file: Path) -> None:
    """Touch it now and every EVERY_S, until cancelled; then it is gone."""
    try:
        while True:
            _touch(file)
            await asyncio.sleep(EVERY_S)
    finally:
        _remove(file)


def _touch(file: Path) -> None:
    try:
        file.touch()
    except OSError as error:
        _LOG.warning("alive_file_not_touched", file=str(file), error=str(error))


def _remove(file: Path) -> None:
    with suppress(OSError):
        file.unlink(missing_ok=True)
