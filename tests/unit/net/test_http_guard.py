"""Which addresses may be fetched from."""

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.net.guard import networks, refusal

PUBLIC = [
    "1.1.1.1", "93.184.215.14", "172.15.255.255", "172.32.0.0", "100.128.0.1", "2606:4700::1111",
    "2a00:1450:4001::1",
]  # fmt: skip

NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "127.0.0.1", "127.8.9.10",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1",
    "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7", "203.0.113.9", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1",
    "2001::1", "2001:db8::1", "2002:7f00:1::", "3fff::1", "64:ff9b:1::1", "4000::1", "5f00::1",
]  # fmt: skip

# An IPv4 address in other clothes is the address that it stands for.
DISGUISED = [
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::a00:1",
    "::127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_reached(address: str) -> None:
    assert refusal(address, ()) is None


@pytest.mark.parametrize("address", NOT_PUBLIC + DISGUISED)
def test_anything_else_may_not_and_the_reason_is_said(address: str) -> None:
    assert refusal(address, ())


def test_a_public_address_in_the_clothes_of_another_family_may_be_reached() -> None:
    assert refusal("::ffff:1.1.1.1", ()) is None
    assert refusal("64:ff9b::101:101", ()) is None


def test_what_settings_allow_may_be_reached_and_nothing_beside_it() -> None:
    allowed = networks(["10.1.0.0/16", "::1"])
    assert refusal("10.1.2.3", allowed) is None
    assert refusal("::ffff:10.1.2.3", allowed) is None
    assert refusal("::1", allowed) is None
    assert refusal("10.2.0.1", allowed)
    assert refusal("127.0.0.1", allowed)


def test_allowing_all_of_ipv4_does_not_open_ipv6() -> None:
    allowed = networks(["0.0.0.0/0"])
    assert refusal("127.0.0.1", allowed) is None
    assert refusal("::1", allowed)


@pytest.mark.parametrize("text", ["10.0.0.0/33", "example.com", "10.0.0.1/8", ""])
def test_a_wrong_network_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="network"):
        networks(["10.0.0.0/8", text])
