"""What lanes need, and who refuses them."""

import pytest

from mailyard.core.errors import ConfigurationError
from mailyard.queue.engine import ALL_CAPABILITIES, KAFKA_CAPABILITIES
from mailyard.queue.job import LANES
from mailyard.queue.lanes import NEEDS, check_lanes, parse_lanes, parse_partitions
from mailyard.settings import load_settings

KAFKA = {"MAILYARD_QUEUE_ENGINE": "kafka", "MAILYARD_KAFKA_SERVERS": "a:9092,b:9092"}


def test_every_lane_says_what_it_needs() -> None:
    assert set(NEEDS) == set(LANES)


def test_postgresql_takes_every_lane() -> None:
    check_lanes(LANES, ALL_CAPABILITIES, "PostgreSQL", "X")


@pytest.mark.parametrize(
    ("lane", "words"),
    [
        ("webhooks", "limits on rate and concurrency per key"),
        ("analysis", "turns between tenants"),
        ("mailbox-sync", "turns between tenants"),
        ("media", "priorities"),
    ],
)
def test_settings_refuse_a_lane_that_needs_what_kafka_lacks(lane: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(KAFKA | {"MAILYARD_KAFKA_LANES": f"email-send,{lane}"})
    assert lane in refused.value.message
    assert words in refused.value.message
    assert "MAILYARD_KAFKA_LANES" in refused.value.message


def test_the_lanes_by_default_fit() -> None:
    lanes = parse_lanes(load_settings(KAFKA).kafka_lanes)
    assert lanes == ("email-send", "email-bulk", "email-events", "inbound-email")
    check_lanes(lanes, KAFKA_CAPABILITIES, "Kafka", "X")


@pytest.mark.parametrize(
    "wrong",
    [
        {"MAILYARD_KAFKA_SERVERS": ""},
        {"MAILYARD_KAFKA_SERVERS": "no-port"},
        {"MAILYARD_KAFKA_LANES": "email-sent"},
        {"MAILYARD_KAFKA_PARTITIONS": "email-send=0"},
        {"MAILYARD_KAFKA_PARTITIONS": "email-send"},
        {"MAILYARD_KAFKA_PREFIX": "no spaces"},
        {"MAILYARD_KAFKA_SASL": "plain"},
        {"MAILYARD_KAFKA_USER": "mailyard"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError):
        load_settings(KAFKA | wrong)


def test_the_password_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(KAFKA | {"MAILYARD_KAFKA_PASSWORD": "se\x01cret"})
    assert "cret" not in refused.value.message


def test_partitions_are_chosen_lane_by_lane() -> None:
    assert parse_partitions("email-send=200, media=5") == {"email-send": 200, "media": 5}
