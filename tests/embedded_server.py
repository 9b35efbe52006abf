"""An embedded PostgreSQL for a test session, on a thread of its own that lives as long as it.

The thread matters: a child that dies with its parent dies with the thread that started it.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailyard.storage import cluster
from mailyard.storage.embedded import EmbeddedPostgres


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """The address of a server whose user may create databases. It need not survive a power cut."""
    server = EmbeddedPostgres(
        folder / "data", connections=200, more={"fsync": "off", "full_page_writes": "off"}
    )
    started, stopping = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    async def live() -> None:
        try:
            await server.start()
        except BaseException as error:
            errors.append(error)
            return
        finally:
            started.set()
        await asyncio.to_thread(stopping.wait)
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    started.wait()
    if errors:
        raise errors[0]
    try:
        yield cluster.url_of(folder / "data", database="postgres", role=cluster.SUPERUSER)
    finally:
        stopping.set()
        thread.join()
