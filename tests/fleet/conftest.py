"""What the tests against real services share. A service that is missing fails them.

`make test-fleet` runs them in two processes, for they wait more than they compute. None may depend
on how fast the machine is: what is waited for is a condition, and its bound only says when it is
given up.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePath
from secrets import token_hex
from typing import Any

import pytest
import redis_servers
from xdist.scheduler import LoadFileScheduling

from mailyard.storage.redis.address import parse_address
from mailyard.storage.redis.link import RedisLink

pytest.register_assert_rewrite(
    "contract.test_cache",
    "contract.test_leases",
    "contract.test_ratelimit",
    "contract.test_bus",
    "contract.test_presence",
)
REDIS_FORMS = ("single", "sentinel", "cluster")
TEST_S = 600.0  # a test that takes longer stands still
LONG = ("kafka", "test_stages", "test_experiments", "test_kubernetes", "test_balancers")


def part_of(nodeid: str) -> str:
    """What one process runs, in its order: a file, or files that share services."""
    file = PurePath(nodeid.partition("::")[0])
    return "kafka" if file.parent.name == "kafka" else file.stem


class ByPart(LoadFileScheduling):
    """Each part to one process."""

    def _split_scope(self, nodeid: str) -> str:
        return part_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByPart:
    return ByPart(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long parts first, so that none of them is left alone at the end."""
    rank = {part: place for place, part in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(part_of(item.nodeid), len(LONG)))
    for item in items:
        here = item.path.is_relative_to(Path(__file__).parent)
        if here and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_S))


@pytest.fixture(scope="session")
def redis_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Redis of each form, by the name of the form. They are left as they are: who wants to harm
    one makes his own."""
    folder = tmp_path_factory.mktemp("redis")
    with ExitStack() as stack:
        alone = stack.enter_context(redis_servers.single(folder / "single"))
        guarded = stack.enter_context(redis_servers.watched(folder / "sentinel"))
        many = stack.enter_context(redis_servers.cluster(folder / "cluster"))
        yield {
            "single": f"redis://127.0.0.1:{alone.port}/0",
            "sentinel": guarded.url,
            "cluster": many.url,
        }


@pytest.fixture(params=REDIS_FORMS)
def redis_url(request: pytest.FixtureRequest, redis_urls: dict[str, str]) -> str:
    """An address under which nobody has written yet, once for each form."""
    return f"{redis_urls[request.param]}?prefix=t{token_hex(4)}"


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    """An open link, with the patience of a busy machine."""
    link = RedisLink(parse_address(redis_url), call_s=10.0)
    await link.open()
    assert link.up, link.why
    yield link
    await link.close()
