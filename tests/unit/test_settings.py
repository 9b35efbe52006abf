"""Settings: every value typed, every mistake named with what is allowed."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.settings import Settings, as_environment, check_budget, describe, load_settings


def refused(environment: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment)
    return caught.value.message


def test_without_anything_the_platform_is_local_and_embedded() -> None:
    settings = load_settings({})
    assert (settings.host, settings.port, settings.smtp_port) == ("127.0.0.1", 8025, 2525)
    assert settings.embedded and settings.page_url == "http://127.0.0.1:8025"
    assert settings.data == Path("data").absolute()


def test_what_is_not_ours_in_the_environment_is_left_alone() -> None:
    settings = load_settings({"PORT": "1", "MAILYARD_TEST_DATABASE_URL": "x", "HOME": "/"})
    assert settings.port == 8025


def test_an_unknown_setting_is_named_with_the_nearest_known_one() -> None:
    assert "MAILYARD_PROT is not a setting; did you mean MAILYARD_PORT?" in refused(
        {"MAILYARD_PROT": "80"}
    )
    assert "did you mean" not in refused({"MAILYARD_XYZZYQ": "1"})
    assert "MAILYARD_port is not a setting" in refused({"MAILYARD_port": "80"})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "0", "a whole number from 1 to 65535"),
        ("PORT", "eighty", "a whole number from 1 to 65535"),
        ("PORT", "", "a whole number from 1 to 65535"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("RELAY_TLS", "maybe", "one of none, opportunistic, required"),
        ("RELAY_URL", "relay.example.org:25", "an address like smtp://host:port"),
        ("RELAY_URL", "smtp://relay.example.org:banana", "an address like smtp://host:port"),
        ("DATABASE_URL", "mysql://x/y", "postgresql://host:port"),
        ("DATABASE_POOLER", "perhaps", "true or false"),
        ("WORKER_MEMORY", "lots", "a size like 300MB"),
        ("WORKER_MEMORY", "0", "a size like 300MB"),
        ("DRAIN_S", "nan", "a number from 0 to 600"),
        ("DRAIN_S", "-1", "a number from 0 to 600"),
        ("INBOX_DOMAIN", "-bad-.example", "a host name"),
        ("INBOX_DOMAIN", "a b", "a host name"),
        ("HOST", "x\r\ny", "text without control characters"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    message = refused({f"MAILYARD_{name}": value})
    assert message.startswith(f"MAILYARD_{name} is ") and allowed in message


def test_a_value_that_may_hold_a_password_is_not_repeated() -> None:
    message = refused({"MAILYARD_DATABASE_URL": "mysql://user:secret@host/db"})
    assert "secret" not in message and "(hidden)" in message


def test_sizes_flags_and_addresses_are_values_not_text() -> None:
    settings = load_settings(
        {
            "MAILYARD_WORKER_MEMORY": "1GB",
            "MAILYARD_API_MEMORY": "300 mb",
            "MAILYARD_DATABASE_URL": "postgresql://u@/db?host=/run/pg",
            "MAILYARD_DATABASE_DIRECT_URL": "postgresql://u@h:5432/db",
            "MAILYARD_DATABASE_POOLER": "yes",
            "MAILYARD_BASE_URL": "https://mail.example.org/",
        }
    )
    assert settings.worker_memory == 1024**3 and settings.api_memory == 300 * 1024**2
    assert settings.database_pooler is True and not settings.embedded
    assert settings.page_url == "https://mail.example.org"


def test_the_file_gives_values_and_the_environment_wins(tmp_path: Path) -> None:
    file = tmp_path / "mailyard.toml"
    file.write_text('port = 9000\nsmtp_port = 2600\nlog_format = "json"\ndrain_s = 1.5\n')
    settings = load_settings({"MAILYARD_CONFIG": str(file), "MAILYARD_PORT": "9001"})
    assert (settings.port, settings.smtp_port, settings.log_format) == (9001, 2600, "json")
    assert settings.drain_s == 1.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "prot is not a setting; did you mean port?"),
        ("port = [1]", "allowed is a whole number"),
        ("port = true", "allowed is a whole number"),
        ("port", "is not TOML"),
        ("[http]\nport = 1", "http is not a setting"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "mailyard.toml"
    file.write_text(text)
    message = refused({"MAILYARD_CONFIG": str(file)})
    assert str(file) in message and said in message


def test_a_file_that_cannot_be_read_is_named() -> None:
    assert "No such file" in refused({"MAILYARD_CONFIG": "/nowhere/mailyard.toml"})


def test_settings_that_need_each_other_are_checked_together() -> None:
    assert "together" in refused({"MAILYARD_TLS_CERT": "/cert.pem"})
    assert "MAILYARD_DATABASE_DIRECT_URL must name the server" in refused(
        {"MAILYARD_DATABASE_URL": "postgresql://h/d", "MAILYARD_DATABASE_POOLER": "true"}
    )


def test_a_relay_is_reached_by_tls_on_connect_or_not_as_one_says() -> None:
    assert load_settings({"MAILYARD_RELAY_URL": "smtps://relay.example"}).relay_url
    contradiction = {"MAILYARD_RELAY_URL": "smtps://relay.example", "MAILYARD_RELAY_TLS": "none"}
    assert "MAILYARD_RELAY_TLS is none" in refused(contradiction)
    signing_in = refused({"MAILYARD_RELAY_URL": "smtp://me:secret@relay.example:587"})
    assert "does not sign in" in signing_in and "secret" not in signing_in


def test_the_connection_budget_bounds_all_processes_together() -> None:
    message = refused({"MAILYARD_WORKER_PROCESSES": "12"})
    assert "may need 150, more than MAILYARD_DATABASE_BUDGET (100)" in message
    assert "MAILYARD_DATABASE_BUDGET" in refused({"MAILYARD_DATABASE_INSTANCES": "20"})
    load_settings({"MAILYARD_WORKER_PROCESSES": "12", "MAILYARD_DATABASE_BUDGET": "150"})


def test_the_budget_may_not_pass_what_the_server_gives() -> None:
    check_budget(load_settings({}), 100)
    with pytest.raises(ConfigurationError, match="the server gives 97"):
        check_budget(load_settings({}), 97)


def test_a_child_reads_the_settings_that_its_supervisor_had() -> None:
    settings = load_settings(
        {"MAILYARD_DRAIN_S": "2.5", "MAILYARD_TLS_CERT": "/c", "MAILYARD_TLS_KEY": "/k"}
    )
    assert load_settings(as_environment(settings)) == settings


def test_settings_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        load_settings({}).port = 1  # type: ignore[misc]


def test_every_setting_says_what_it_is_and_what_is_allowed() -> None:
    rows = describe()
    assert len(rows) == len(Settings.__dataclass_fields__)
    assert all(
        name.startswith("MAILYARD_") and about and allowed for name, about, allowed, _ in rows
    )
