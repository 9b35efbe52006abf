"""The contract of presence on Redis."""

import contract.test_presence as contract
import pytest
from contract_cases import cases_of

from mailyard.bus.adapters.redis_presence import RedisPresence
from mailyard.storage.redis.link import RedisLink


@pytest.fixture
def make(link: RedisLink) -> contract.Make:
    return lambda here_s: RedisPresence(link=link, here_s=here_s)


globals().update(cases_of(contract, "make"))
