"""Which DNS servers are asked, and whose AD bit is believed."""

from pathlib import Path

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.net.dns_servers import DnsServer, parse_servers, system_servers


def test_servers_of_a_setting_in_their_order() -> None:
    assert parse_servers(
        "127.0.0.1:5353, [2001:db8::1]:54 2001:DB8::2,192.0.2.1", validates=True
    ) == (
        DnsServer("127.0.0.1", 5353, True),
        DnsServer("2001:db8::1", 54, True),
        DnsServer("2001:db8::2", 53, True),
        DnsServer("192.0.2.1", 53, True),
    )


@pytest.mark.parametrize(
    "text",
    ["", "dns.example", "127.0.0.1:0", "127.0.0.1:x", "127.0.0.1:70000", "[::1", "1.1.1.1 " * 9],
)
def test_what_is_no_list_of_servers_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_servers(text, validates=False)


def test_the_systems_servers(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# mine\nsearch example.org\nnameserver 192.0.2.1 ; one\nnameserver fe80::1%eth0\n"
    )
    assert system_servers(file) == (DnsServer("192.0.2.1"), DnsServer("fe80::1%eth0"))


def test_the_systems_ad_bit_is_believed_with_trust_ad(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("options edns0 trust-ad\nnameserver 127.0.0.53\n")
    assert system_servers(file) == (DnsServer("127.0.0.53", 53, True),)


def test_a_system_that_names_no_server_has_one_itself(tmp_path: Path) -> None:
    assert system_servers(tmp_path / "absent") == (DnsServer("127.0.0.1"),)


def test_a_line_that_names_no_address_is_told(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text("nameserver dns.example\n")
    with pytest.raises(ConfigurationError, match=r"dns\.example"):
        system_servers(file)


def test_a_server_is_shown_as_it_is_written() -> None:
    assert str(DnsServer("2001:db8::1", 54)) == "[2001:db8::1]:54"
    assert str(DnsServer("192.0.2.1")) == "192.0.2.1:53"
