"""Behind nginx and HAProxy as `deploy/` configures them: a process is killed in the middle of load,
nothing is lost beyond what it had in hand, and nothing is sent to it any more.
"""

import asyncio
import http.client
import json
import os
import signal
import smtplib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from app_work import work
from balancers import HAPROXY, NGINX, STREAM_MODULE, Role, haproxy, nginx, roles
from running_platform import wait_until

from mailyard.access.bootstrap import bootstrap
from mailyard.app import Application
from mailyard.settings import Settings
from mailyard.storage.database import Database

CALLERS = 4
ELSEWHERE = "127.0.0.9"  # an address of this machine that no balancer connects from
IS_INSTALLED = NGINX.exists() and HAPROXY.exists() and STREAM_MODULE.exists()

pytestmark = pytest.mark.skipif(
    not IS_INSTALLED and os.environ.get("CI") != "true",
    reason="nginx or HAProxy is missing: tests/services/install_balancers.sh",
)


@pytest.fixture
async def key(database_url: str) -> str:
    application = Application(Settings(database_url=database_url))
    await application.open()
    first = await bootstrap(
        database=application.database,
        workspaces=application.workspaces,
        users=application.users,
        keys=application.keys,
        sessions=application.sessions,
    )
    await application.close()
    assert first is not None
    return first.api_key


@pytest.fixture
async def backends(database_url: str, tmp_path: Path, key: str) -> AsyncIterator[dict[str, Role]]:
    assert key
    with roles(database_url, tmp_path) as running:
        yield running


def call(port: int, key: str, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """One request over a connection of its own: (status, body); (0, …) when it was cut."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, OSError) as error:
        return 0, str(error).encode()
    finally:
        connection.close()


class Load:
    """CALLERS that make inboxes one after another until told to stop."""

    def __init__(self, port: int, key: str) -> None:
        self.port, self.key = port, key
        self.made: list[str] = []
        self.refused: list[tuple[int, bytes]] = []
        self._stop = threading.Event()
        self._callers = ThreadPoolExecutor(CALLERS)
        self._ends = [self._callers.submit(self._run) for _ in range(CALLERS)]

    def _run(self) -> None:
        while not self._stop.is_set():
            status, body = call(self.port, self.key, "POST", "/v1/inboxes", {})
            if status == 201:
                self.made.append(json.loads(body)["address"])
            else:
                self.refused.append((status, body))

    def more(self, count: int) -> None:
        """Wait until so many more were made."""
        wanted = len(self.made) + count
        wait_until(lambda: len(self.made) >= wanted, 60.0)

    def end(self) -> None:
        self._stop.set()
        for one in self._ends:
            one.result(30)


async def addresses(database: Database) -> set[str]:
    async with database.connection() as connection:
        return {row["address"] for row in await connection.fetch("SELECT address FROM address")}


def delivered(port: int, recipient: str, subject: str) -> bool:
    """Whether a mail from ELSEWHERE was answered with 250."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=20, source_address=(ELSEWHERE, 0)) as client:
            client.sendmail("a@b.example", [recipient], f"Subject: {subject}\r\n\r\nx\r\n")
        return True
    except (smtplib.SMTPException, OSError):
        return False


@contextmanager
def behind_nginx(backends: dict[str, Role], folder: Path) -> Iterator[tuple[int, int]]:
    with nginx(backends, folder) as ports:
        yield ports


@contextmanager
def behind_haproxy(backends: dict[str, Role], folder: Path) -> Iterator[tuple[int, int]]:
    with haproxy(backends, folder, "300ms") as ports:
        yield ports


balanced = pytest.mark.parametrize("behind", [behind_nginx, behind_haproxy])


@balanced
async def test_a_killed_api_process_costs_what_it_had_in_hand_and_nothing_else(
    behind: Callable[..., Iterator[tuple[int, int]]],
    backends: dict[str, Role],
    key: str,
    database: Database,
    tmp_path: Path,
) -> None:
    with behind(backends, tmp_path) as (port, _):  # type: ignore[attr-defined]
        load = Load(port, key)
        load.more(40)
        backends["api-1"].end()
        load.more(60)
        lost = list(load.refused)
        load.more(60)
        load.end()
    assert len(lost) <= CALLERS, lost
    assert load.refused == lost, "nothing went to the dead process after that"
    assert set(load.made) <= await addresses(database)
    assert len(set(load.made)) == len(load.made)


@balanced
async def test_a_killed_smtp_process_loses_no_mail_and_the_client_is_who_it_is(
    behind: Callable[..., Iterator[tuple[int, int]]],
    backends: dict[str, Role],
    key: str,
    database: Database,
    tmp_path: Path,
) -> None:
    with behind(backends, tmp_path) as (api, smtp):  # type: ignore[attr-defined]
        status, body = call(api, key, "POST", "/v1/inboxes", {})
        assert status == 201
        inbox = json.loads(body)["address"]
        taken = [delivered(smtp, inbox, f"first {n}") for n in range(10)]
        backends["smtp-1"].end()
        taken += [delivered(smtp, inbox, f"second {n}") for n in range(20)]
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT peer, raw FROM message")
    assert taken == [True] * 30, "a connection that is refused goes to the other process"
    assert len(rows) == 30
    assert {row["peer"] for row in rows} == {ELSEWHERE}


@balanced
async def test_an_event_passes_through_at_once(
    behind: Callable[..., Iterator[tuple[int, int]]],
    backends: dict[str, Role],
    key: str,
    database_url: str,
    tmp_path: Path,
) -> None:
    with behind(backends, tmp_path) as (port, smtp):  # type: ignore[attr-defined]
        _, body = call(port, key, "POST", "/v1/inboxes", {})
        asked = f"GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as stream:
            stream.sendall(asked.encode())
            said = await asyncio.to_thread(stream.recv, 4096)
            assert said.startswith(b"HTTP/1.1 200 ")
            assert await asyncio.to_thread(delivered, smtp, json.loads(body)["address"], "hello")
            await ingested(database_url)
            while b"message.received" not in said:  # in much less than the heartbeat's 30 s
                more = await asyncio.to_thread(stream.recv, 4096)
                assert more
                said += more


async def ingested(database_url: str) -> None:
    """What a worker does with the mail."""
    application = Application(Settings(database_url=database_url))
    await application.open()
    await work(application)
    await application.close()


async def test_a_stopped_process_is_taken_out_by_checks_and_comes_back(
    backends: dict[str, Role], key: str, tmp_path: Path
) -> None:
    with haproxy(backends, tmp_path, "200ms") as (port, _):
        stopped = backends["api-1"].process
        stopped.send_signal(signal.SIGSTOP)
        try:
            # Three checks of 5 s each have to fail first.
            wait_until(lambda: _is_quick(port, key), 60.0)
        finally:
            stopped.send_signal(signal.SIGCONT)
        backends["api-2"].end()
        wait_until(lambda: call(port, key, "GET", "/v1/inboxes")[0] == 200, 30.0)


def _is_quick(port: int, key: str) -> bool:
    """Whether twenty connections in a row are answered by whoever works."""
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
        try:
            connection.request("GET", "/v1/inboxes", headers={"authorization": f"Bearer {key}"})
            if connection.getresponse().status != 200:
                return False
        except (http.client.HTTPException, OSError):
            return False
        finally:
            connection.close()
    return True
