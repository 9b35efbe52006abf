"""MTA-STS (RFC 8461): the record, the policy, what it asks of a host, what the cache does."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core.errors import InvalidInput
from mailyard.protocol.dns_answer import (
    Answer,
    NoName,
    NoRecords,
    Result,
    TemporaryFailure,
    Trouble,
)
from mailyard.protocol.mta_sts import (
    FETCH_AGAIN_S,
    POLICY_BYTES,
    CachedPolicy,
    FetchFailure,
    FetchPolicy,
    Mode,
    NoPolicy,
    StsPolicy,
    Treatment,
    UsePolicy,
    allows,
    next_step,
    parse_policy,
    parse_record,
    policy_url,
    record_name,
    treatment,
)

POLICY = b"""version: STSv1\r
mode: enforce\r
mx: mail.example.com\r
mx: *.example.net\r
mx: backupmx.example.com\r
max_age: 604800\r
"""
NOW = datetime(2026, 5, 1, tzinfo=UTC)
ENFORCE = StsPolicy(Mode.ENFORCE, 604_800, ("mail.example.com",))


def test_where_record_and_policy_stand() -> None:
    assert record_name("example.com") == "_mta-sts.example.com"
    assert policy_url("example.com") == "https://mta-sts.example.com/.well-known/mta-sts.txt"


# The record.


@pytest.mark.parametrize(
    "texts",
    [
        ["v=STSv1; id=20160831085700Z;"],
        ["v=STSv1;id=20160831085700Z"],
        ["v=STSv1 ; id=20160831085700Z ; extension=x/y"],
        ["unrelated", "v=STSv1; id=20160831085700Z;", "v=spf1 -all", "v=STSv12; id=1;"],
    ],
)
def test_the_id_of_a_record(texts: list[str]) -> None:
    assert parse_record(texts) == "20160831085700Z"


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["v=spf1 -all"],
        ["v=STSv1; id=1;", "v=STSv1; id=1;"],
        ["v=STSv1;"],
        ["v=STSv1; id=;"],
        ["v=STSv1; id=a-b;"],
        ["v=STSv1; id=" + "1" * 33],
        ["v=STSv1; id=1; id=2"],
        ["v=STSv1; id=1;; x=y"],
        ["v=STSv1; id=1; nonsense"],
        ["id=1; v=STSv1"],
    ],
)
def test_what_is_no_record(texts: list[str]) -> None:
    with pytest.raises(InvalidInput):
        parse_record(texts)


# The policy.


def test_a_policy() -> None:
    patterns = ("mail.example.com", "*.example.net", "backupmx.example.com")
    assert parse_policy(POLICY) == StsPolicy(Mode.ENFORCE, 604_800, patterns)
    assert parse_policy(POLICY.replace(b"\r\n", b"\n")) == parse_policy(POLICY)
    assert parse_policy(POLICY.rstrip()) == parse_policy(POLICY)


def test_of_a_key_that_stands_twice_the_first_counts_and_unknown_keys_are_ignored() -> None:
    text = POLICY + b"mode: none\nmax_age: 1\nfuture: thing: with colon\n"
    assert parse_policy(text) == parse_policy(POLICY)


def test_a_policy_of_mode_none_needs_no_mx() -> None:
    assert parse_policy(b"version: STSv1\nmode: none\nmax_age: 0\n") == StsPolicy(Mode.NONE, 0, ())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"STSv1", b"STSv2", "version"),
        (b"version: STSv1\r\n", b"", "version"),
        (b"enforce", b"enforced", "mode"),
        (b"604800", b"31557601", "max_age"),
        (b"604800", b"-1", "max_age"),
        (b"604800", b"1e3", "max_age"),
        (b"604800", b"\xd9\xa1", "max_age"),
        (b"max_age: 604800", b"", "max_age"),
        (b"*.example.net", b"*.*.example.net", "pattern"),
        (b"*.example.net", b"m*.example.net", "pattern"),
        (b"*.example.net", b"*", "pattern"),
        (b"*.example.net", b"192.0.2.1/24", "pattern"),
        (b"mode: enforce", b"mode enforce", "line 2"),
        (b"mail.example.com", b"\xff", "UTF-8"),
        (b"mx: ", b"xm: ", "no mx"),
        (b"mx: backupmx", b"mx: a.example\n" * 300 + b"mx: backupmx", "256"),
        (b"mode", b" " * POLICY_BYTES + b"mode", str(POLICY_BYTES)),
    ],
)
def test_what_is_no_policy(old: bytes, new: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_policy(POLICY.replace(old, new))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200).map(lambda noise: POLICY[:50] + noise + POLICY[50:]))
def test_noise_is_a_policy_or_is_refused(content: bytes) -> None:
    try:
        policy = parse_policy(content)
    except InvalidInput:
        return
    assert policy.mx


# Hosts.


@pytest.mark.parametrize(
    ("pattern", "host", "allowed"),
    [
        ("mail.example.com", "mail.example.com", True),
        ("mail.example.com", "MAIL.example.com.", True),
        ("mail.example.com", "x.mail.example.com", False),
        ("*.example.com", "mail.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "aexample.com", False),
        ("*.com", "com", False),
    ],
)
def test_which_hosts_a_pattern_names(pattern: str, host: str, allowed: bool) -> None:
    assert allows(StsPolicy(Mode.ENFORCE, 1, (pattern,)), host) is allowed


@pytest.mark.parametrize(
    ("mode", "listed", "unlisted"),
    [
        (Mode.ENFORCE, Treatment.MUST_VERIFY, Treatment.NOT_LISTED),
        (Mode.TESTING, Treatment.REPORT, Treatment.REPORT),
        (Mode.NONE, Treatment.FREE, Treatment.FREE),
    ],
)
def test_what_each_mode_asks(mode: Mode, listed: Treatment, unlisted: Treatment) -> None:
    policy = StsPolicy(mode, 1, ("mail.example.com",))
    assert treatment(policy, "mail.example.com") is listed
    assert treatment(policy, "evil.example") is unlisted
    assert treatment(None, "evil.example") is Treatment.FREE


# The cache.

RECORD: Result[str] = Answer(("v=STSv1; id=2;",), 300, False, "_mta-sts.example.com")
GONE: list[Result[str]] = [
    NoName(300, False),
    NoRecords(300, False),
    TemporaryFailure(Trouble.TIMEOUT, ""),
    Answer(("v=spf1 -all",), 300, False, "_mta-sts.example.com"),
]


def cached(record_id: str = "2", age: timedelta = timedelta(hours=1)) -> CachedPolicy:
    return CachedPolicy(record_id, ENFORCE, NOW - age)


def failed(record_id: str = "2", ago_s: float = 10) -> FetchFailure:
    return FetchFailure(record_id, NOW - timedelta(seconds=ago_s))


def test_a_domain_seen_for_the_first_time_is_fetched_before_delivery() -> None:
    assert next_step(RECORD, None, None, NOW) == FetchPolicy("2", None)


@pytest.mark.parametrize("record", GONE)
def test_without_a_record_and_a_cached_policy_there_is_none(record: Result[str]) -> None:
    assert isinstance(next_step(record, None, None, NOW), NoPolicy)


@pytest.mark.parametrize("record", GONE)
def test_a_cached_policy_holds_when_the_record_is_gone(record: Result[str]) -> None:
    assert next_step(record, cached(), None, NOW) == UsePolicy(ENFORCE, None)


@pytest.mark.parametrize("record", GONE)
def test_an_expired_policy_holds_no_more(record: Result[str]) -> None:
    assert isinstance(next_step(record, cached(age=timedelta(days=7)), None, NOW), NoPolicy)


def test_the_same_id_uses_the_cache() -> None:
    assert next_step(RECORD, cached(), None, NOW) == UsePolicy(ENFORCE, None)


def test_a_new_id_is_fetched_and_the_cached_policy_holds_when_that_fails() -> None:
    assert next_step(RECORD, cached("1"), None, NOW) == FetchPolicy("2", ENFORCE)
    assert next_step(RECORD, cached("1"), failed(), NOW) == UsePolicy(ENFORCE, None)
    expired = cached("1", timedelta(days=8))
    assert next_step(RECORD, expired, None, NOW) == FetchPolicy("2", None)


def test_a_policy_of_a_day_is_fetched_again_beside() -> None:
    day = timedelta(days=1)
    assert next_step(RECORD, cached(age=day), None, NOW) == UsePolicy(ENFORCE, "2")
    assert next_step(RECORD, cached(age=day), failed(), NOW) == UsePolicy(ENFORCE, None)


def test_after_a_failure_the_same_id_is_left_alone_for_a_while() -> None:
    assert isinstance(next_step(RECORD, None, failed(), NOW), NoPolicy)
    assert next_step(RECORD, None, failed(ago_s=FETCH_AGAIN_S), NOW) == FetchPolicy("2", None)
    assert next_step(RECORD, None, failed("1"), NOW) == FetchPolicy("2", None)
