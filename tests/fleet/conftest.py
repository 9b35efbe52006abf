"""What the tests against real services share. A service that is missing fails them."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from secrets import token_hex

import pytest
import redis_servers

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
