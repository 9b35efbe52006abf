"""A PostgreSQL of one's own for a while: the embedded one, on a thread, as long as a block.

For who proves or measures something and has no event loop that lives as long as the server. The
thread matters: a child that dies with its parent dies with the thread that started it.
"""

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mailyard.storage.embedded import EmbeddedPostgres


@contextmanager
def own_postgres(
    folder: Path, *, connections: int, more: Mapping[str, str] | None = None
) -> Iterator[EmbeddedPostgres]:
    """The server on `folder`, as the product runs it but for the settings in `more`.

    Raises ConfigurationError when it does not start.
    """
    server = EmbeddedPostgres(folder, connections=connections, more=more)
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
        yield server
    finally:
        stopping.set()
        thread.join()
