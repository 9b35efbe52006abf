"""Where a domain's mail goes (RFC 5321 section 5.1), decided from answers that are handed in."""

from ipaddress import IPv4Address, IPv6Address, ip_address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.dns_answer import (
    Address,
    Answer,
    MxRecord,
    NoName,
    NoRecords,
    Result,
    TemporaryFailure,
    Trouble,
)
from mailyard.protocol.mx import (
    ADDRESSES_PER_HOST,
    ADDRESSES_TRIED,
    HOSTS_TRIED,
    Decision,
    Later,
    MxHost,
    MxRoute,
    Never,
    Targets,
    in_turns,
    is_public,
    literal_address,
    mx_route,
    mx_targets,
    site_of,
)

TIMEOUT = TemporaryFailure(Trouble.TIMEOUT, "192.0.2.53:53 did not answer")
NO_NAME = NoName(300, False)
NO_RECORDS = NoRecords(300, False)
US = ("mail.ours.example", "mail2.ours.example")


def answer(*hosts: tuple[int, str], authenticated: bool = False) -> Answer[MxRecord]:
    return Answer(tuple(MxRecord(*host) for host in hosts), 300, authenticated, "example.org")


def at(*addresses: str, authenticated: bool = False, name: str = "") -> Answer[Address]:
    return Answer(tuple(map(ip_address, addresses)), 300, authenticated, name)


def route(result: Result[MxRecord], domain: str = "example.org", seed: int = 1) -> Decision:
    return mx_route(domain, result, US, Random(seed))


def hosts(decision: Decision) -> list[str]:
    assert isinstance(decision, MxRoute)
    return [host.name for host in decision.hosts]


def targets(
    decision: Decision, found: dict[str, Result[Address]], own: tuple[Address, ...] = ()
) -> Targets | Never | Later:
    assert isinstance(decision, MxRoute)
    return mx_targets(decision, found, own, lambda _: True)


# Which hosts.


def test_lower_preferences_come_first() -> None:
    assert hosts(route(answer((20, "b.example"), (5, "a.example"), (30, "c.example")))) == [
        "a.example",
        "b.example",
        "c.example",
    ]


def test_inside_a_preference_the_order_is_random_and_follows_the_seed() -> None:
    result = answer(*((10, f"mx{n}.example") for n in range(5)), (20, "last.example"))
    orders = {tuple(hosts(route(result, seed=seed))) for seed in range(200)}
    assert len({order[0] for order in orders}) == 5
    assert {order[-1] for order in orders} == {"last.example"}
    turned = Answer(result.records[::-1], 300, False, "example.org")
    assert hosts(route(turned)) == hosts(route(result))


def test_without_mx_the_domain_itself_takes_the_mail() -> None:
    decision = route(NO_RECORDS)
    assert isinstance(decision, MxRoute)
    assert decision.implicit
    assert decision.hosts == (MxHost("example.org", 0),)
    assert decision.site == "example.org"


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (NO_NAME, "5.1.2"),
        (answer((0, ".")), "5.1.10"),
        (answer((10, ".")), "5.1.10"),
        (answer((10, "192.0.2.1")), "5.4.4"),
        (answer((10, "[192.0.2.1]"), (20, "2001:db8::1")), "5.4.4"),
        (answer((10, "mail server.example"), (20, "a..b")), "5.4.4"),
        (answer((10, US[0])), "5.4.6"),
    ],
)
def test_what_can_never_be_delivered(result: Result[MxRecord], status: str) -> None:
    decision = route(result)
    assert isinstance(decision, Never)
    assert decision.status == status
    assert "example.org" in decision.text


@pytest.mark.parametrize("trouble", list(Trouble))
def test_trouble_with_dns_is_later_and_says_why(trouble: Trouble) -> None:
    decision = route(TemporaryFailure(trouble, "192.0.2.53:53"))
    assert isinstance(decision, Later)
    assert decision.status == "4.4.3"
    assert trouble.value in decision.text


def test_a_null_mx_beside_others_is_passed_over() -> None:
    decision = route(answer((0, "."), (10, "mx.example")))
    assert hosts(decision) == ["mx.example"]


def test_hosts_that_are_addresses_are_passed_over_and_told() -> None:
    decision = route(answer((10, "192.0.2.1"), (20, "mx_1.example")))
    assert isinstance(decision, MxRoute)
    assert hosts(decision) == ["mx_1.example"]
    assert [one.name for one in decision.skipped] == ["192.0.2.1"]


def test_a_host_named_twice_is_tried_once_at_its_best_preference() -> None:
    assert hosts(route(answer((30, "a.example"), (10, "a.example"), (20, "b.example")))) == [
        "a.example",
        "b.example",
    ]


def test_from_our_own_name_on_the_list_is_cut() -> None:
    result = answer(
        (10, "first.example"), (20, US[1]), (20, "same.example"), (30, US[0]), (40, "worse.example")
    )
    assert hosts(route(result)) == ["first.example"]


def test_a_domain_that_is_this_server_and_has_no_mx_would_loop() -> None:
    decision = route(NO_RECORDS, domain=US[0])
    assert isinstance(decision, Never)
    assert decision.status == "5.4.6"


def test_of_a_hundred_hosts_few_are_tried() -> None:
    result = answer(*((n // 50, f"mx{n}.example") for n in range(100)))
    decision = route(result)
    assert isinstance(decision, MxRoute)
    assert len(decision.hosts) == HOSTS_TRIED
    assert {host.preference for host in decision.hosts} == {0}
    assert len(decision.skipped) == 90


def test_our_own_name_counts_even_beyond_the_hosts_tried() -> None:
    result = answer(*((20, f"mx{n}.example") for n in range(50)), (10, US[0]))
    assert isinstance(route(result), Never)


# Which addresses.


def test_families_take_turns_and_hosts_keep_their_order() -> None:
    decision = route(answer((10, "a.example"), (20, "b.example")))
    found: dict[str, Result[Address]] = {
        "a.example": at("192.0.2.1", "192.0.2.2", "2001:db8::1"),
        "b.example": at("2001:db8::2", authenticated=True, name="c.example"),
    }
    result = targets(decision, found)
    assert isinstance(result, Targets)
    assert [str(one.address) for one in result.targets] == [
        "2001:db8::1",
        "192.0.2.1",
        "192.0.2.2",
        "2001:db8::2",
    ]
    assert (result.targets[-1].canonical, result.targets[-1].authenticated) == ("c.example", True)


def test_in_turns_keeps_every_address_once() -> None:
    four, six = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
    assert in_turns([four, four, six, six]) == [six, four]
    assert in_turns([]) == []


@pytest.mark.parametrize(
    ("first", "second", "kind", "status"),
    [
        (NO_NAME, NO_NAME, Never, "5.4.4"),
        (NO_RECORDS, NO_NAME, Never, "5.4.4"),
        (NO_NAME, TIMEOUT, Later, "4.4.3"),
        (TIMEOUT, TIMEOUT, Later, "4.4.3"),
    ],
)
def test_without_any_address_trouble_is_later_and_absence_never(
    first: Result[Address], second: Result[Address], kind: type, status: str
) -> None:
    decision = route(answer((10, "a.example"), (20, "b.example")))
    result = targets(decision, {"a.example": first, "b.example": second})
    assert isinstance(result, kind)
    assert isinstance(result, Never | Later) and result.status == status


def test_one_host_with_an_address_is_enough() -> None:
    decision = route(answer((10, "a.example"), (20, "b.example")))
    result = targets(decision, {"a.example": TIMEOUT, "b.example": at("192.0.2.1")})
    assert isinstance(result, Targets)
    assert [one.name for one in result.skipped] == ["a.example"]


@pytest.mark.parametrize("found", [NO_NAME, NO_RECORDS])
def test_a_domain_with_neither_mx_nor_address_takes_no_mail(found: Result[Address]) -> None:
    result = targets(route(NO_RECORDS), {"example.org": found})
    assert isinstance(result, Never)
    assert result.status == "5.1.2"


def test_from_a_host_at_our_own_address_on_the_list_is_cut() -> None:
    ours = IPv4Address("192.0.2.9")
    decision = route(answer((10, "a.example"), (20, "b.example"), (30, "c.example")))
    found: dict[str, Result[Address]] = {
        "a.example": at("192.0.2.1"),
        "b.example": at("192.0.2.9"),
        "c.example": at("192.0.2.3"),
    }
    result = targets(decision, found, (ours,))
    assert isinstance(result, Targets)
    assert [one.host.name for one in result.targets] == ["a.example"]
    alone = targets(route(answer((20, "b.example"))), found, (ours,))
    assert isinstance(alone, Never) and alone.status == "5.4.6"


@pytest.mark.parametrize("seed", range(8))
def test_hosts_beside_ours_at_the_same_preference_are_cut_too(seed: int) -> None:
    decision = route(answer((10, "a.example"), (10, "b.example")), seed=seed)
    found: dict[str, Result[Address]] = {
        "a.example": at("192.0.2.1"),
        "b.example": at("192.0.2.9"),
    }
    assert isinstance(targets(decision, found, (IPv4Address("192.0.2.9"),)), Never)


def test_addresses_are_bounded_for_a_host_and_together() -> None:
    decision = route(answer(*((n, f"mx{n}.example") for n in range(10))))
    many = at(*(f"192.0.2.{n}" for n in range(1, 200)))
    result = targets(decision, {f"mx{n}.example": many for n in range(10)})
    assert isinstance(result, Targets)
    assert len(result.targets) == ADDRESSES_TRIED
    first = [one for one in result.targets if one.host.name == "mx0.example"]
    assert len(first) == ADDRESSES_PER_HOST


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1"),
        *("::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::1"),
    ],
)
def test_mail_goes_to_no_address_inside(address: str) -> None:
    assert not is_public(ip_address(address))
    decision = route(answer((10, "a.example")))
    assert isinstance(decision, MxRoute)
    result = mx_targets(decision, {"a.example": at(address)}, (), is_public)
    assert isinstance(result, Never)
    assert "public" in result.text


@pytest.mark.parametrize("address", ["8.8.8.8", "2a00:1450:4001:81b::1b", "64:ff9b::808:808"])
def test_mail_goes_to_public_addresses(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("domain", "address"),
    [
        ("[192.0.2.1]", IPv4Address("192.0.2.1")),
        ("[ipv6:2001:db8::1]", IPv6Address("2001:db8::1")),
        ("[2001:db8::1]", None),
        ("[x]", None),
        ("example.org", None),
    ],
)
def test_address_literals(domain: str, address: Address | None) -> None:
    assert literal_address(domain) == address


# Sites.


def test_domains_with_the_same_hosts_share_a_site() -> None:
    one = route(answer((10, "a.example"), (20, "b.example")), domain="one.example")
    two = route(answer((5, "b.example"), (5, "a.example")), domain="two.example")
    other = route(answer((10, "a.example")), domain="other.example")
    assert isinstance(one, MxRoute) and isinstance(two, MxRoute) and isinstance(other, MxRoute)
    assert one.site == two.site == "a.example,b.example"
    assert other.site != one.site


@settings(max_examples=50, deadline=None)
@given(st.sets(st.text("abcdefgh.-", min_size=1, max_size=60), min_size=1, max_size=40))
def test_a_site_is_short_and_stands_for_one_set_of_hosts(names: set[str]) -> None:
    assert len(site_of(names)) <= 200
    assert site_of(names) == site_of(sorted(names, reverse=True))
    assert site_of(names) != site_of([*names, "one.more"])


_HOSTS = st.tuples(
    st.integers(0, 3),
    st.sampled_from([*US, ".", "192.0.2.1", *(f"m{n}.example" for n in range(15))]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(_HOSTS, min_size=1, max_size=30), st.integers())
def test_a_route_never_leads_to_ourselves_or_to_a_worse_host(
    records: list[tuple[int, str]], seed: int
) -> None:
    decision = route(answer(*records), seed=seed)
    if not isinstance(decision, MxRoute):
        return
    own = min((preference for preference, host in records if host in US), default=99)
    preferences = [host.preference for host in decision.hosts]
    assert preferences == sorted(preferences)
    assert all(preference < own for preference in preferences)
    assert 0 < len(set(hosts(decision))) == len(decision.hosts) <= HOSTS_TRIED
