"""The pytest plugin: fixtures over the client. pytest finds it once Mailyard is installed.

Mailyard is found by MAILYARD_URL and MAILYARD_API_KEY. A test that asks for a fixture without them
fails and says so; every other test does not notice the plugin.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from mailyard.client import Inbox, Mailyard

TTL_S = 3600.0  # of an inbox whose test is killed before it can delete it


@pytest.fixture(scope="session")
def mailyard() -> Iterator["Mailyard"]:
    """A client of the workspace whose key is in MAILYARD_API_KEY, for the whole run."""
    from mailyard.client import Mailyard, WrongSetting

    try:
        client = Mailyard()
    except WrongSetting as error:
        pytest.fail(f"the fixtures of Mailyard need to know where it is: {error}", pytrace=False)
    with client:
        yield client


@pytest.fixture
def mailyard_inbox(mailyard: "Mailyard", request: pytest.FixtureRequest) -> Iterator["Inbox"]:
    """An inbox of this test's own, gone after it: `.wait_for(subject="code").code`."""
    name = "".join(letter if letter.isprintable() else " " for letter in request.node.name)
    inbox = mailyard.create_inbox(ttl_s=TTL_S, name=name[:100], labels=["pytest"])
    yield inbox
    inbox.delete()
