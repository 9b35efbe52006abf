"""An embedded PostgreSQL for a test session."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailyard.proving.own_postgres import own_postgres
from mailyard.storage import cluster


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """The address of a server whose user may create databases. It need not survive a power cut."""
    data = folder / "data"
    careless = {"fsync": "off", "full_page_writes": "off"}
    with own_postgres(data, connections=200, more=careless):
        yield cluster.url_of(data, database="postgres", role=cluster.SUPERUSER)
