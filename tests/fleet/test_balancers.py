"""Behind nginx and HAProxy as `deploy/` configures them: a process is killed in the middle of load,
nothing is lost beyond what it had in hand, and nothing is sent to it any more.
"""

import asyncio
import http.client
import json
import os
import re
import signal
import smtplib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from app_work import work
from balancers import (
    HAPROXY,
    NGINX,
    STREAM_MODULE,
    Role,
    bring_back,
    haproxy,
    nginx,
    roles,
    sticky_haproxy,
    sticky_nginx,
)
from conftest import run_aside
from contract.conftest import shared_database_url
from running_platform import wait_until

from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.access.bootstrap import FirstStart, bootstrap
from mailyard.app import Application
from mailyard.settings import Settings
from mailyard.storage.database import Database, DatabaseAddress

__all__ = ["shared_database_url"]

CALLERS = 4
ELSEWHERE = "127.0.0.9"  # an address of this machine that no balancer connects from
IS_INSTALLED = NGINX.exists() and HAPROXY.exists() and STREAM_MODULE.exists()

pytestmark = pytest.mark.skipif(
    not IS_INSTALLED and os.environ.get("CI") != "true",
    reason="nginx or HAProxy is missing: tests/services/install_balancers.sh",
)


@pytest.fixture(scope="module")
def first(shared_database_url: str) -> FirstStart:
    found: FirstStart | None = run_aside(first_start(shared_database_url))
    assert found is not None
    return found


async def first_start(url: str) -> FirstStart | None:
    application = Application(Settings(database_url=url))
    await application.open()
    try:
        return await bootstrap(
            database=application.database,
            workspaces=application.workspaces,
            users=application.users,
            keys=application.keys,
            sessions=application.sessions,
        )
    finally:
        await application.close()


@pytest.fixture
def key(first: FirstStart) -> str:
    return first.api_key


@pytest.fixture
async def cookie(shared_database_url: str, first: FirstStart) -> str:
    """The cookie of somebody who has signed in."""
    application = Application(Settings(database_url=shared_database_url))
    await application.open()
    session = await application.sessions.start(first.user_id, first.workspace_id, "a browser")
    await application.close()
    return f"{SESSION_COOKIE}={session.token}"


@pytest.fixture
async def database(shared_database_url: str) -> AsyncIterator[Database]:
    url = shared_database_url
    database = Database(DatabaseAddress(url, url, connections=2))
    await database.open()
    yield database
    await database.close()


@pytest.fixture(scope="module")
def running(
    shared_database_url: str, first: FirstStart, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Role]]:
    with roles(shared_database_url, tmp_path_factory.mktemp("roles")) as running:
        yield running


@pytest.fixture
def backends(running: dict[str, Role]) -> dict[str, Role]:
    """All of them, those too that a test before has ended."""
    bring_back(running)
    return running


def call(port: int, key: str, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """One request over a connection of its own: (status, body); (0, …) when it was cut."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
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
        wait_until(lambda: len(self.made) >= wanted, 180.0)

    def end(self) -> None:
        self._stop.set()
        for one in self._ends:
            one.result(90)


async def addresses(database: Database) -> set[str]:
    async with database.connection() as connection:
        return {row["address"] for row in await connection.fetch("SELECT address FROM address")}


def delivered(port: int, recipient: str, subject: str) -> bool:
    """Whether a mail from ELSEWHERE was answered with 250."""
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=60, source_address=(ELSEWHERE, 0)) as client:
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
        taken = [delivered(smtp, inbox, f"{inbox} {n}") for n in range(10)]
        backends["smtp-1"].end()
        taken += [delivered(smtp, inbox, f"{inbox} {n}") for n in range(10, 30)]
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT peer, raw FROM message")
    rows = [row for row in rows if f"Subject: {inbox} ".encode() in row["raw"]]
    assert taken == [True] * 30, "a connection that is refused goes to the other process"
    assert len(rows) == 30
    assert {row["peer"] for row in rows} == {ELSEWHERE}


@balanced
async def test_an_event_passes_through_at_once(
    behind: Callable[..., Iterator[tuple[int, int]]],
    backends: dict[str, Role],
    key: str,
    shared_database_url: str,
    tmp_path: Path,
) -> None:
    await ingested(shared_database_url)  # what tests before have left
    with behind(backends, tmp_path) as (port, smtp):  # type: ignore[attr-defined]
        _, body = call(port, key, "POST", "/v1/inboxes", {})
        asked = f"GET /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as stream:
            stream.sendall(asked.encode())
            said = await asyncio.to_thread(stream.recv, 4096)
            assert said.startswith(b"HTTP/1.1 200 ")
            assert await asyncio.to_thread(delivered, smtp, json.loads(body)["address"], "hello")
            await ingested(shared_database_url)
            while b"message.received" not in said:  # who keeps things back waits for some KB more
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
            wait_until(lambda: _are_answered(port, key), 240.0)
        finally:
            stopped.send_signal(signal.SIGCONT)
        backends["api-2"].end()
        wait_until(lambda: call(port, key, "GET", "/v1/inboxes")[0] == 200)


def _are_answered(port: int, key: str) -> bool:
    """Whether twenty connections in a row are: none leads to him who says nothing."""
    for _ in range(20):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=4.0)
        try:
            connection.request("GET", "/v1/inboxes", headers={"authorization": f"Bearer {key}"})
            if connection.getresponse().status != 200:
                return False
        except (http.client.HTTPException, OSError):
            return False
        finally:
            connection.close()
    return True


def browse(port: int, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """What a browser gets, over a connection of its own; header names with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request("GET", path, headers=given)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def who(port: int, cookie: str) -> int:
    """The process that answers whoever has these cookies."""
    return int(json.loads(browse(port, "/stats", cookie=cookie)[2])["this"]["pid"])


@balanced
async def test_a_session_needs_no_process_of_its_own(
    behind: Callable[..., Iterator[tuple[int, int]]],
    backends: dict[str, Role],
    cookie: str,
    tmp_path: Path,
) -> None:
    with behind(backends, tmp_path) as (port, _):  # type: ignore[attr-defined]
        assert {browse(port, "/inboxes", cookie=cookie)[0] for _ in range(12)} == {200}
        both = {backends[name].process.pid for name in ("api-1", "api-2")}
        assert {who(port, cookie) for _ in range(12)} == both
        backends["api-1"].end()
        assert {browse(port, "/inboxes", cookie=cookie)[0] for _ in range(12)} == {200}


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_who_wants_it_sticky_has_it_and_loses_no_session_with_the_process(
    kind: str, backends: dict[str, Role], cookie: str, tmp_path: Path
) -> None:
    running = (
        nginx(backends, tmp_path, sticky_nginx)
        if kind == "nginx"
        else haproxy(backends, tmp_path, "300ms", sticky_haproxy)
    )
    with running as (port, _):
        status, headers, _ = browse(port, "/inboxes", cookie=cookie)
        kept = f"{cookie}; {headers.get('set-cookie', '').partition(';')[0]}"
        assert status == 200
        (own,) = {who(port, kept) for _ in range(10)}
        (role,) = [one for one in backends.values() if one.process.pid == own]
        role.end()
        assert {browse(port, "/inboxes", cookie=kept)[0] for _ in range(10)} == {200}
        assert who(port, kept) != own


@balanced
async def test_answers_come_compressed_and_only_what_is_public_may_be_kept(
    behind: Callable[..., Iterator[tuple[int, int]]],
    backends: dict[str, Role],
    cookie: str,
    tmp_path: Path,
) -> None:
    browser = {"cookie": cookie, "accept_encoding": "gzip, deflate, br, zstd"}
    with behind(backends, tmp_path) as (port, _):  # type: ignore[attr-defined]
        _, page, packed = browse(port, "/inboxes", **browser)
        assert page["content-encoding"] == "zstd" and page["cache-control"] == "no-store"
        html = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        assert html.strip().endswith(b"</html>") and len(packed) < len(html) / 2
        for guess in ("/inboxes?done=saved", "/inboxes"):
            more = {"sec_fetch_site": "cross-site"} if "?" not in guess else {}
            _, headers, _ = browse(port, guess, **browser, **more)
            assert "content-encoding" not in headers, "what somebody else may have asked for"
        for path in set(re.findall(r'(?:href|src)="(/static/[^"]+)"', html.decode())):
            _, headers, content = browse(port, path, **browser)
            assert headers["cache-control"] == "public, max-age=31536000, immutable", path
            assert "set-cookie" not in headers and headers["vary"] == "accept-encoding"
            _, plain, _ = browse(port, path)
            if len(content) > 1_024:
                assert headers["content-encoding"] == "br" and "content-encoding" not in plain
        for path in ("/v1/inboxes", "/", "/account", "/sign-in", "/v1/nothing", "/metrics"):
            _, headers, _ = browse(port, path, **browser)
            assert headers["cache-control"] == "no-store", path
