"""A place that cannot be listened on is said with the setting that is wrong: port or host."""

import socket

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.fleet.ports import check_free, settled


def refused(host: str, port: int, setting: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        check_free(host, port, setting)
    return caught.value.message


def test_a_port_that_is_taken_names_the_ports_setting() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = refused("127.0.0.1", port, "MAILYARD_SMTP_PORT")
        assert f"127.0.0.1:{port}" in said
        assert "listens there; set MAILYARD_SMTP_PORT to a free port" in said
        assert settled(None, port, "127.0.0.1", "MAILYARD_SUBMISSION_PORT") == 0
        with pytest.raises(ConfigurationError, match="MAILYARD_SUBMISSION_PORT"):
            settled(port, 2587, "127.0.0.1", "MAILYARD_SUBMISSION_PORT")


HOSTS_SETTING = [
    ("MAILYARD_PORT", "MAILYARD_HOST"),
    ("MAILYARD_SMTP_PORT", "MAILYARD_SMTP_HOST"),
    ("MAILYARD_SUBMISSIONS_PORT", "MAILYARD_SMTP_HOST"),
]


@pytest.mark.parametrize("host", ["192.0.2.77", "x" * 70])
@pytest.mark.parametrize(("setting", "named"), HOSTS_SETTING)
def test_an_address_that_is_not_here_names_the_hosts_setting(
    host: str, setting: str, named: str
) -> None:
    said = refused(host, 8025, setting)
    assert f"set {named} to an address of this machine" in said
    assert "free port" not in said


def test_a_name_that_nobody_knows_names_the_hosts_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(socket.socket):
        def bind(self, address: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "socket", Deaf)
    said = refused("mail.invalid", 8025, "MAILYARD_PORT")
    assert "no such host" in said and "set MAILYARD_HOST" in said
