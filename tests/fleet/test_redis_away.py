"""Redis stopped, killed, failing over: the platform's API, mail and live events go on, and it comes
back by itself."""

import asyncio
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

import pytest
import redis_servers
from redis_servers import Server
from running_platform import Platform, running_platform, wait_until

from mailyard.bus.adapters.fleet import FleetBus
from mailyard.cache.adapters.redis import RedisCache
from mailyard.client import Mailyard
from mailyard.core.clock import SystemClock
from mailyard.core.ids import uuid7
from mailyard.observe.metrics import REDIS_CALLS
from mailyard.ratelimit.adapters.fleet import FleetRateLimit
from mailyard.ratelimit.adapters.redis import RedisRateLimit
from mailyard.storage.database import Database
from mailyard.storage.redis.address import parse_address
from mailyard.storage.redis.link import RedisAway, RedisLink
from mailyard.storage.redis.script import command

PATIENCE_S = 180.0


def count(outcome: str) -> float:
    return float(REDIS_CALLS.labels(outcome)._value.get())


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Server]:
    with redis_servers.single(tmp_path) as server:
        yield server


async def test_a_stopped_redis_costs_each_call_at_most_once_and_comes_back(alone: Server) -> None:
    link = RedisLink(parse_address(f"redis://127.0.0.1:{alone.port}"), call_s=2.0)
    await link.open()
    limit = FleetRateLimit(
        shared=RedisRateLimit(link=link), processes=lambda: 2, clock=SystemClock()
    )
    cache = RedisCache(link=link)
    workspace = uuid7()
    await cache.put(workspace, {"a": b"1"}, 600)
    assert await limit.take("k", 1, 0.001, 10) == 0.0
    alone.pause()
    failed, refused = count("failed"), count("away")
    waits = await asyncio.gather(*(limit.take("k", 1, 0.001, 10) for _ in range(100)))
    assert sum(wait_s == 0.0 for wait_s in waits) in (
        4,
        5,
    )  # the part of one of two, less what was used
    for _ in range(300):
        assert await cache.get(workspace, ["a"]) == {}
        assert await limit.take("other", 0, 1.0, 1) == 0.0
    # The first batch waited for its answer in vain; nobody after it did.
    assert count("failed") - failed <= 3
    assert count("away") - refused >= 600
    assert link.away_s() > 0.0
    alone.go_on()
    async with asyncio.timeout(PATIENCE_S):
        await link.until(up=True)
    assert await cache.get(workspace, ["a"]) == {"a": b"1"}
    assert link.away_s() == 0.0
    await link.close()


async def test_a_killed_redis_is_noticed_at_once_and_found_again(alone: Server) -> None:
    link = RedisLink(parse_address(f"redis://127.0.0.1:{alone.port}"), call_s=5.0)
    changes: list[bool] = []
    link.watch(changes.append)
    await link.open()
    alone.kill()
    with pytest.raises(RedisAway):
        await link.run([command("GET", "a")])
    alone.start()
    async with asyncio.timeout(PATIENCE_S):
        await link.until(up=True)
    assert await link.run([command("GET", "a")]) == [None]
    assert changes == [True, False, True]
    await link.close()


async def test_a_full_redis_that_refuses_writes_is_as_good_as_away(tmp_path: Path) -> None:
    with redis_servers.single(tmp_path, "--maxmemory-policy", "noeviction") as server:
        link = RedisLink(parse_address(f"redis://127.0.0.1:{server.port}"), call_s=5.0)
        await link.open()
        limit = FleetRateLimit(
            shared=RedisRateLimit(link=link), processes=lambda: 1, clock=SystemClock()
        )
        server.ask("CONFIG", "SET", "maxmemory", "1")
        assert await limit.take("k", 1, 1.0, 5) == 0.0
        assert not link.up
        assert "maxmemory" in link.why
        server.ask("CONFIG", "SET", "maxmemory", "0")
        async with asyncio.timeout(PATIENCE_S):
            await link.until(up=True)
        await link.close()


async def test_wake_ups_go_by_postgresql_while_redis_is_stopped(
    alone: Server, database: Database
) -> None:
    links = [
        RedisLink(parse_address(f"redis://127.0.0.1:{alone.port}"), call_s=2.0) for _ in range(2)
    ]
    speaker, listener = (
        FleetBus(link=link, database=database, clock=SystemClock()) for link in links
    )
    for link, bus in zip(links, (speaker, listener), strict=True):
        await link.open()
        await bus.open()
    news = listener.subscribe("live")
    alone.pause()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(link.until(up=False) for link in links))
        while news.heard():
            await asyncio.sleep(0.1)
        speaker.announce("live")
        assert await news.wait(PATIENCE_S)
        alone.go_on()
        await asyncio.gather(*(link.until(up=True) for link in links))
        assert await news.wait(PATIENCE_S)  # listening anew wakes everybody
    for link, bus in zip(links, (speaker, listener), strict=True):
        await bus.close()
        await link.close()


class Traffic:
    """Somebody who sends mails one after the other, and reads figures between them."""

    def __init__(self, platform: Platform) -> None:
        self.page, self.key = platform.ready["page"], platform.ready["api_key"]
        self.sent: list[str] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        with Mailyard(self.page, self.key) as client:
            self.address = client.create_inbox().address
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with Mailyard(self.page, self.key) as client:
            while not self._stop.is_set():
                subject = f"mail {len(self.sent)}"
                try:
                    client.send(
                        sender="me@inbox.localhost", to=self.address, subject=subject, text="Hello"
                    )
                    client.inbox(self.address)
                except Exception as error:
                    self.failures.append(repr(error))
                    return
                self.sent.append(subject)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def goes_on(self, mails: int = 30) -> None:
        """Until so many more mails are accepted."""
        until = len(self.sent) + mails
        wait_until(lambda: len(self.sent) >= until or self.failures, PATIENCE_S)
        assert not self.failures

    def all_arrived(self) -> None:
        """Every mail that was accepted lies in its inbox, once."""
        with Mailyard(self.page, self.key) as client:
            inbox = client.inbox(self.address)
            wanted = sorted(self.sent)
            wait_until(lambda: len(list(inbox.mails())) >= len(wanted), PATIENCE_S)
            assert sorted(mail.subject for mail in inbox.mails()) == wanted

    def waits_for_news(self, subject: str) -> None:
        """A mail that somebody waits for is told of."""
        with Mailyard(self.page, self.key) as client:
            inbox = client.create_inbox()
            client.send(sender="me@inbox.localhost", to=inbox.address, subject=subject, text="Hi")
            assert inbox.wait_for(subject=subject, timeout_s=PATIENCE_S).subject == subject


def figure(platform: Platform, name: str) -> float:
    """A metric of the API process."""
    with urlopen(f"{platform.ready['page']}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(rf"^{re.escape(name)} ([0-9.e+-]+)$", text, re.MULTILINE)
    assert found, name
    return float(found[1])


def roles(platform: Platform) -> list[int]:
    return [
        pid for role in ("api", "smtp", "worker", "scheduler") for pid in platform.pids_of(role)
    ]


def there(platform: Platform) -> bool:
    return figure(platform, "mailyard_redis_away_seconds") == 0.0


SETTINGS = {
    "submission_port": "0",
    "submissions_port": "0",
    "rate_per_s": "500",
    "rate_burst": "50",
}


def test_the_platform_goes_on_while_redis_is_stopped(tmp_path: Path, alone: Server) -> None:
    url = f"redis://127.0.0.1:{alone.port}"
    with running_platform(tmp_path / "data", redis_url=url, **SETTINGS) as platform:
        processes = roles(platform)
        with Traffic(platform) as traffic:
            traffic.goes_on()
            assert there(platform)
            alone.pause()
            wait_until(lambda: not there(platform), PATIENCE_S)
            traffic.goes_on()
            traffic.waits_for_news("while it is stopped")
            assert figure(platform, 'mailyard_redis_fallbacks_total{part="limit"}') > 0
            assert figure(platform, 'mailyard_redis_calls_total{outcome="failed"}') < 20
            alone.go_on()
            wait_until(lambda: there(platform), PATIENCE_S)
            traffic.goes_on()
        traffic.all_arrived()
        traffic.waits_for_news("afterwards")
        assert roles(platform) == processes  # nothing was started anew


def test_the_platform_goes_on_through_a_failover(tmp_path: Path) -> None:
    with ExitStack() as stack:
        guarded = stack.enter_context(redis_servers.watched(tmp_path / "redis"))
        platform = stack.enter_context(
            running_platform(tmp_path / "data", redis_url=guarded.url, **SETTINGS)
        )
        processes = roles(platform)
        old = guarded.primary()
        with Traffic(platform) as traffic:
            traffic.goes_on()
            assert there(platform)
            old.kill()
            wait_until(lambda: guarded.primary() is not old, PATIENCE_S)
            wait_until(lambda: there(platform), PATIENCE_S)
            traffic.goes_on()
            # And with the new one stopped, which holds its connections and says nothing.
            second = guarded.primary()
            second.pause()
            stack.callback(second.go_on)
            wait_until(lambda: guarded.primary() is not second, PATIENCE_S)
            wait_until(lambda: there(platform), PATIENCE_S)
            traffic.goes_on()
        traffic.all_arrived()
        third = guarded.primary()
        assert third.ask("PUBSUB", "NUMSUB", "my:bus")[1] >= len(platform.pids_of("worker"))
        assert roles(platform) == processes
        platform.stop(signal.SIGTERM)
