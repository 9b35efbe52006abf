"""Addresses of Redis: what they mean, and what is refused."""

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.settings import load_settings
from mailyard.storage.redis.address import Form, RedisAddress, parse_address
from mailyard.storage.redis.script import SLOTS, TAGS, command, slot_of, tag_of, tags


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://h", RedisAddress(Form.SINGLE, (("h", 6379),))),
        (
            "rediss://u:p%40s@h:1/3?prefix=x&ca=/etc/ca.pem",
            RedisAddress(
                Form.SINGLE,
                (("h", 1),),
                tls=True,
                database=3,
                user="u",
                password="p@s",
                prefix="x",
                ca="/etc/ca.pem",
            ),
        ),
        (
            "redis+sentinel://:p@a,b:2,[::1]:3/main/1?sentinel_password=s",
            RedisAddress(
                Form.SENTINEL,
                (("a", 26379), ("b", 2), ("::1", 3)),
                name="main",
                database=1,
                password="p",
                sentinel_password="s",
            ),
        ),
        ("redis+cluster://a:1,b", RedisAddress(Form.CLUSTER, (("a", 1), ("b", 6379)))),
    ],
)
def test_an_address_says_form_hosts_and_credentials(text: str, address: RedisAddress) -> None:
    assert parse_address(text) == address
    assert "p@s" not in address.shown()


@pytest.mark.parametrize(
    "text",
    [
        "http://h",
        "redis://",
        "redis://a,b",
        "redis://h/x",
        "redis://h/1/2",
        "redis+sentinel://h",
        "redis+cluster://h/1",
        "redis://h:99999",
        "redis://h?prefix=a:b",
        "redis://h?timeout=3",
        "redis://h#x",
    ],
)
def test_what_is_no_address_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)
    with pytest.raises(ConfigurationError, match="MAILYARD_REDIS_URL is \\(hidden\\)"):
        load_settings({"MAILYARD_REDIS_URL": text})


def test_keys_fall_into_all_groups_and_a_command_is_its_words() -> None:
    assert {tag_of(f"k{number}") for number in range(2_000)} == set(tags())
    assert slot_of("123456789") == 0x31C3 % SLOTS, "the check value of the specification"
    for servers in (1, 2, 3, 4, 6, 8):
        held = [slot_of(tag) * servers // SLOTS for tag in tags()]
        assert {held.count(server) for server in range(servers)} == {TAGS // servers}
    assert command("GET", "a").as_known() == ("GET", "a")
