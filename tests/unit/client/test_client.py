"""The client without a platform: its reading of HTTP, its waiting, its second tries."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from mailyard.client import (
    AsyncMailyard,
    ClientError,
    Mail,
    Mailyard,
    NoAnswer,
    Refused,
    WrongSetting,
)
from mailyard.client.calls import Given, Waiting
from mailyard.client.mail import mail_of, summary_of
from mailyard.client.wire import Answer, AnswerReader, target

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: t\r\n\r\n"
)
UNTIL_CLOSED = b"HTTP/1.0 200 OK\r\n\r\nhello"
EMPTY = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "status", "body", "keeps"),
    [
        (SIZED, 200, b"hello", True),
        (CHUNKED, 201, b"hello", True),
        (UNTIL_CLOSED, 200, b"hello", False),
        (EMPTY, 204, b"", False),
    ],
)
def test_an_answer_is_the_same_however_it_is_cut(
    answer: bytes, status: int, body: bytes, keeps: bool
) -> None:
    for size in (1, 2, 3, 7, len(answer)):
        reader = AnswerReader()
        for start in range(0, len(answer), size):
            assert reader.answer is None
            reader.feed(answer[start : start + size])
        if reader.answer is None:
            reader.feed(b"")
        assert reader.answer is not None
        assert (reader.answer.status, reader.answer.body) == (status, body)
        assert reader.keeps is keeps


@pytest.mark.parametrize(
    "pieces",
    [
        (SIZED[:-1], b""),
        (b"",),
        (CHUNKED[:-9], b""),
        (b"SSH-2.0-x\r\n\r\n",),
        (b"HTTP/1.1 abc\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",),
        (b"x" * 70_000,),
    ],
)
def test_what_is_no_whole_answer_is_no_answer(pieces: tuple[bytes, ...]) -> None:
    reader = AnswerReader()
    with pytest.raises(NoAnswer):
        for piece in pieces:
            reader.feed(piece)


def test_a_problem_is_an_error_with_its_field() -> None:
    said = {"code": "quota_exceeded", "detail": "no more inboxes", "field": "inboxes"}
    with pytest.raises(Refused, match="402 quota_exceeded: no more inboxes") as caught:
        Answer(402, {"retry-after": "7"}, json.dumps(said).encode()).check()
    assert (caught.value.field, caught.value.retry_after_s) == ("inboxes", 7.0)
    with pytest.raises(Refused, match="502 http_error"):
        Answer(502, {}, b"<html>a proxy's page").check()


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("", "my_key"),
        ("http://h", ""),
        ("ftp://h", "my_key"),
        ("http://user:secret@h", "my_key"),
        ("http://h:port", "my_key"),
        ("http://h", "a\r\nx: y"),
    ],
)
def test_what_cannot_be_right_is_said_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, url: str, key: str
) -> None:
    for name in ("MAILYARD_URL", "MAILYARD_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WrongSetting):
        target(url, key)
    assert "my_" not in repr(target("https://h/base/", "my_secret"))


def message(number: int, subject: str = "Your code") -> dict[str, Any]:
    """A message as the API gives it."""
    return {
        "id": f"msg_{number}",
        "inbox_id": "ibx_1",
        "recipient": "a@inbox.localhost",
        "from_address": "shop@example.org",
        "from_name": "Shop",
        "subject": subject,
        "preview": "",
        "received_at": "2026-01-31T12:00:00Z",
        "size_bytes": 9,
        "content": {"text": "hi", "html": None, "headers": [], "files": []},
    }


def waiting(given: Given, timeout_s: float = 250.0) -> Waiting:
    return Waiting(
        inbox_id="ibx_1",
        address="a@inbox.localhost",
        from_="",
        subject="code",
        timeout_s=timeout_s,
        given=given,
        now=0.0,
    )


def test_a_wait_is_as_long_as_asked_whatever_the_server_allows() -> None:
    wait = waiting(Given())
    asked, now = [], 0.0
    while (ask := wait.ask(now)) is not None:
        asked.append(float(str(ask.query["timeout_s"])))
        assert wait.heard(None) is None
        now += asked[-1]
    assert asked == [100.0, 100.0, 50.0]


def test_a_mail_is_given_once_and_the_next_wait_goes_on_behind_it() -> None:
    given = Given()
    first = waiting(given)
    assert first.ask(0.0) is not None
    found = first.heard(mail_of(message(1)))
    assert isinstance(found, Mail)
    other = Waiting(  # another filter finds the same mail again, and waits for the next
        inbox_id="ibx_1",
        address="a@inbox.localhost",
        from_="shop",
        subject="",
        timeout_s=0.0,
        given=given,
        now=0.0,
    )
    assert other.ask(0.0) is not None
    assert other.heard(mail_of(message(1))) is None
    again = other.ask(0.0)
    assert again is not None, "what lies behind it is asked for, though time is up"
    assert again.query["after"] == "msg_1"
    second = other.heard(mail_of(message(2)))
    assert second is not None
    assert second.id == "msg_2"
    missed = waiting(given).missed([summary_of(message(2)), summary_of(message(3, "Bill"))])
    assert "'Your code' from shop@example.org (given before); 'Bill' from" in str(missed)


@contextmanager
def server(*connections: list[bytes]) -> Iterator[str]:
    """A server that gives the connections that come, one after the other, these answers to their
    requests, and then hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answers in connections:
                peer, _ = listener.accept()
                with peer:
                    for answer in answers:
                        if not peer.recv(65536):
                            break
                        peer.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)
        assert not thread.is_alive(), "every answer was fetched"


def page(*items: dict[str, Any]) -> bytes:
    body = json.dumps({"items": items, "next_cursor": None}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


BUSY = b"HTTP/1.1 503 No\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"


def test_a_closed_connection_and_a_busy_server_are_tried_again() -> None:
    script = ([page()], [BUSY, page()])  # the first connection is closed while it lies idle
    with server(*script) as url, Mailyard(url, "my_key") as client:
        assert list(client.inboxes()) == []
        assert list(client.inboxes()) == []

    async def same(url: str) -> None:
        async with AsyncMailyard(url, "my_key") as client:
            assert [one async for one in client.inboxes()] == []
            assert [one async for one in client.inboxes()] == []

    with server(*script) as url:
        asyncio.run(same(url))


def test_a_mail_without_what_is_wanted_says_what_is_in_it() -> None:
    with pytest.raises(ClientError, match="no one-time code in 'Your code'"):
        _ = mail_of(message(1)).code
    told = {**message(1), "meaning": {"codes": [{"value": "493021"}], "links": []}}
    assert mail_of(told).code == "493021"


def test_its_import_costs_neither_the_server_nor_an_event_loop() -> None:
    text = (
        "import sys, mailyard.client; mailyard.client.Mailyard;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert "mailyard" in loaded.stdout.split()
    heavy = {"asyncio", "ssl", "msgspec", "litestar", "asyncpg", "http", "email"}
    assert heavy & set(loaded.stdout.split()) == set()
