"""Every fault of DNS and what comes of it: for a mail on its way, DANE, a domain's check."""

from collections.abc import AsyncIterator
from ipaddress import ip_address
from random import Random

import pytest
from dns_server import Fault, ScriptedDns

from mailyard.core.clock import ManualClock
from mailyard.net.dns import DnsLimits, Resolver
from mailyard.net.mail_route import MailRoute, MailRouter, run_check
from mailyard.protocol.dane import DaneLater, DaneOff, DaneVerify
from mailyard.protocol.dns_answer import MxRecord
from mailyard.protocol.dns_check import check_addresses, check_domain
from mailyard.protocol.dns_records import DkimKey, Purpose, SendingSetup, State
from mailyard.protocol.mx import HOSTS_TRIED, Later, Never, is_public

PATIENT = DnsLimits(try_timeout_s=20.0, deadline_s=60.0)  # for what is answered
STEADY = DnsLimits(try_timeout_s=0.5, deadline_s=20.0)  # for silence among answers
QUICK = DnsLimits(try_timeout_s=0.2, deadline_s=3.0)  # for silence alone
SILENT = (Fault.TIMEOUT, Fault.WRONG_ID)
OURS = ("mail.ours.example",)


@pytest.fixture
async def server() -> AsyncIterator[ScriptedDns]:
    async with ScriptedDns(authenticated=True) as server:
        server.add("example.org", "MX", "10 mx1.example.org.", "20 mx2.example.org.")
        server.add("mx1.example.org", "A", "192.0.2.1")
        server.add("mx1.example.org", "AAAA", "2001:db8::1")
        server.add("mx2.example.org", "A", "192.0.2.2")
        yield server


def router(
    server: ScriptedDns, *, anywhere: bool = True, limits: DnsLimits = PATIENT
) -> MailRouter:
    resolver = Resolver([server.address], ManualClock(), limits)
    own = (ip_address("192.0.2.99"),)
    allowed = (lambda _: True) if anywhere else is_public
    return MailRouter(resolver, Random(1), OURS, own, allowed)


async def addresses(server: ScriptedDns, domain: str = "example.org") -> list[str]:
    found = await router(server).find(domain)
    assert isinstance(found, MailRoute)
    return [str(target.address) for target in found.targets.targets]


# Where a mail goes.


async def test_hosts_in_their_order_and_families_in_turns(server: ScriptedDns) -> None:
    assert await addresses(server) == ["2001:db8::1", "192.0.2.1", "192.0.2.2"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.TIMEOUT, "no server answered in time"),
        (Fault.SERVFAIL, "SERVFAIL"),
        (Fault.BOGUS, "signature expired"),
        (Fault.REFUSED, "refused"),
        (Fault.WRONG_ID, "no server answered in time"),
        (Fault.TRUNCATED_AND_HANGS_UP, "closed the connection"),
    ],
)
async def test_trouble_with_the_mx_is_later_and_never_a_bounce(
    server: ScriptedDns, fault: Fault, said: str
) -> None:
    server.fault("example.org", "MX", fault)
    server.add("example.org", "A", "192.0.2.66")
    limits = QUICK if fault in SILENT else PATIENT
    found = await router(server, limits=limits).find("example.org")
    assert isinstance(found, Later)
    assert found.status == "4.4.3"
    assert said in found.text


@pytest.mark.parametrize(
    "fault",
    [
        Fault.WRONG_ID_FIRST,
        Fault.WRONG_QUESTION_FIRST,
        Fault.GARBAGE_FIRST,
        Fault.OTHER_NAMES,
        Fault.FLOOD,
        Fault.TRUNCATED,
        Fault.NO_EDNS,
    ],
)
async def test_a_forged_or_clumsy_answer_sends_no_mail_elsewhere(
    server: ScriptedDns, fault: Fault
) -> None:
    for name, kind in (
        ("example.org", "MX"),
        ("mx1.example.org", "A"),
        ("mx1.example.org", "AAAA"),
    ):
        server.fault(name, kind, fault)
    assert await addresses(server) == ["2001:db8::1", "192.0.2.1", "192.0.2.2"]


async def test_a_circle_of_aliases_is_later(server: ScriptedDns) -> None:
    server.add("loop.example", "CNAME", "pool.example.")
    server.add("pool.example", "CNAME", "loop.example.")
    found = await router(server).find("loop.example")
    assert isinstance(found, Later)
    assert "CNAME" in found.text


async def test_an_mx_that_is_an_alias_in_a_circle_leaves_the_others(server: ScriptedDns) -> None:
    server.add("mx1.example", "CNAME", "mx1.example.")
    server.add("a.example", "MX", "10 mx1.example.", "20 mx2.example.org.")
    assert await addresses(server, "a.example") == ["192.0.2.2"]


async def test_of_a_hundred_mx_few_are_asked_for_and_tried(server: ScriptedDns) -> None:
    server.add("many.example", "MX", *(f"10 mx{n}.many.example." for n in range(100)))
    for number in range(100):
        server.add(f"mx{number}.many.example", "A", f"198.51.100.{number}")
    assert len(await addresses(server, "many.example")) == HOSTS_TRIED
    assert len({name for name, kind, _ in server.asked if kind == "A"}) == HOSTS_TRIED


async def test_a_host_whose_addresses_time_out_leaves_the_others(server: ScriptedDns) -> None:
    server.fault("mx1.example.org", "A", Fault.TIMEOUT)
    server.fault("mx1.example.org", "AAAA", Fault.TIMEOUT)
    found = await router(server, limits=STEADY).find("example.org")
    assert isinstance(found, MailRoute)
    assert [str(target.address) for target in found.targets.targets] == ["192.0.2.2"]


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ((), "5.1.2"),
        (("0 .",), "5.1.10"),
        (("10 mail.ours.example.",), "5.4.6"),
        (("10 absent.example.",), "5.4.4"),
    ],
)
async def test_what_can_never_be_delivered(
    server: ScriptedDns, records: tuple[str, ...], status: str
) -> None:
    if records:
        server.add("never.example", "MX", *records)
    found = await router(server).find("never.example")
    assert isinstance(found, Never)
    assert found.status == status


async def test_a_domain_without_mx_is_its_own_host(server: ScriptedDns) -> None:
    assert await addresses(server, "mx1.example.org") == ["2001:db8::1", "192.0.2.1"]


async def test_a_host_at_our_own_address_would_loop(server: ScriptedDns) -> None:
    server.add("a.example", "MX", "10 b.example.")
    server.add("b.example", "A", "192.0.2.99")
    found = await router(server).find("a.example")
    assert isinstance(found, Never)
    assert found.status == "5.4.6"


async def test_dns_that_points_inside_reaches_nothing(server: ScriptedDns) -> None:
    server.add("a.example", "MX", "10 b.example.")
    server.add("b.example", "A", "127.0.0.1", "10.0.0.1", "169.254.169.254")
    found = await router(server, anywhere=False).find("a.example")
    assert isinstance(found, Never)
    assert isinstance(await router(server, anywhere=False).find("[127.0.0.1]"), Never)


async def test_an_address_literal_asks_nobody(server: ScriptedDns) -> None:
    assert await addresses(server, "[192.0.2.7]") == ["192.0.2.7"]
    assert server.asked == []


async def test_domains_with_the_same_hosts_share_a_site(server: ScriptedDns) -> None:
    server.add("b.example", "MX", "5 mx2.example.org.", "5 mx1.example.org.")
    sites = set()
    for domain in ("example.org", "b.example"):
        found = await router(server).find(domain)
        assert isinstance(found, MailRoute)
        sites.add(found.route.site)
    assert sites == {"mx1.example.org,mx2.example.org"}


# DANE.


async def test_dane_binds_where_everything_was_validated(server: ScriptedDns) -> None:
    server.add("_25._tcp.mx1.example.org", "TLSA", "3 1 1 " + "ab" * 32)
    mail = router(server)
    found = await mail.find("example.org")
    assert isinstance(found, MailRoute)
    dane = await mail.dane(found.route, found.targets.targets[0])
    assert isinstance(dane.plan, DaneVerify)
    assert dane.names == ("mx1.example.org", "example.org")
    assert isinstance((await mail.dane(found.route, found.targets.targets[-1])).plan, DaneOff)


async def test_an_alias_is_asked_for_by_its_last_name_first(server: ScriptedDns) -> None:
    server.add("a.example", "MX", "10 alias.example.")
    server.add("alias.example", "CNAME", "mx1.example.org.")
    server.add("_25._tcp.alias.example", "TLSA", "3 1 1 " + "cd" * 32)
    mail = router(server)
    found = await mail.find("a.example")
    assert isinstance(found, MailRoute)
    dane = await mail.dane(found.route, found.targets.targets[0])
    assert dane.names == ("alias.example", "a.example")
    server.add("_25._tcp.mx1.example.org", "TLSA", "3 1 1 " + "ab" * 32)
    mail = router(server)
    dane = await mail.dane(found.route, found.targets.targets[0])
    assert dane.names == ("mx1.example.org", "a.example", "alias.example")


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.SERVFAIL, Fault.BOGUS])
async def test_trouble_with_tlsa_holds_the_mail_back(server: ScriptedDns, fault: Fault) -> None:
    server.fault("_25._tcp.mx1.example.org", "TLSA", fault)
    mail = router(server)
    found = await mail.find("example.org")
    assert isinstance(found, MailRoute)
    mail = router(server, limits=QUICK if fault in SILENT else PATIENT)
    dane = await mail.dane(found.route, found.targets.targets[0])
    assert isinstance(dane.plan, DaneLater)


async def test_without_validation_nobody_asks_for_tlsa() -> None:
    async with ScriptedDns() as server:
        server.add("example.org", "MX", "10 mx1.example.org.")
        server.add("mx1.example.org", "A", "192.0.2.1")
        mail = router(server)
        found = await mail.find("example.org")
        assert isinstance(found, MailRoute)
        assert isinstance((await mail.dane(found.route, found.targets.targets[0])).plan, DaneOff)
        assert not any(kind == "TLSA" for _, kind, _ in server.asked)


# The check of a sending domain.

SETUP = SendingSetup(
    domain="news.example.org",
    dkim=(DkimKey("yard1", "rsa", "MIIBIjAN"),),
    spf_terms=("include:spf.yard.example",),
    return_path="bounce.news.example.org",
    return_path_target="return.yard.example",
    tracking="go.news.example.org",
    tracking_target="track.yard.example",
    receiving=(MxRecord(10, "in.yard.example"),),
    reports_to="dmarc@example.org",
)


def organisation(domain: str) -> str:
    return ".".join(domain.split(".")[-2:])


def set_up(server: ScriptedDns) -> None:
    server.add("yard1._domainkey.news.example.org", "TXT", '"v=DKIM1; k=rsa; " "p=MIIBIjAN"')
    server.add("bounce.news.example.org", "CNAME", "return.yard.example.")
    server.add("go.news.example.org", "CNAME", "track.yard.example.")
    server.add("news.example.org", "TXT", '"v=spf1 include:spf.yard.example -all"')
    server.add("spf.yard.example", "TXT", '"v=spf1 ip4:203.0.113.0/24 -all"')
    server.add("news.example.org", "MX", "10 in.yard.example.")
    server.add("_dmarc.example.org", "TXT", '"v=DMARC1; p=reject; sp=quarantine"')


async def states(server: ScriptedDns, setup: SendingSetup = SETUP) -> dict[str, State]:
    resolver = Resolver([server.address], ManualClock(), STEADY)
    verdicts = await run_check(check_domain(setup, organisation), resolver)
    return {f"{one.purpose.value} {one.name}": one.state for one in verdicts}


async def test_a_domain_that_is_set_up(server: ScriptedDns) -> None:
    set_up(server)
    found = await states(server)
    assert set(found.values()) == {State.GOOD}
    assert list(found) == [
        "dkim yard1._domainkey.news.example.org",
        "return_path bounce.news.example.org",
        "spf news.example.org",
        "dmarc _dmarc.news.example.org",
        "tracking go.news.example.org",
        "receiving news.example.org",
        "alignment _dmarc.news.example.org",
    ]


async def test_a_domain_of_which_nothing_is_set_up(server: ScriptedDns) -> None:
    found = await states(server)
    assert found.pop("spf news.example.org") is State.WARNING
    assert found.pop("alignment _dmarc.news.example.org") is State.GOOD
    assert set(found.values()) == {State.MISSING}


async def test_names_entered_in_full_are_found_where_they_landed(server: ScriptedDns) -> None:
    server.add("yard1._domainkey.news.example.org.news.example.org", "TXT", '"p=MIIBIjAN"')
    server.add("bounce.news.example.org.news.example.org", "CNAME", "return.yard.example.")
    found = await states(server)
    assert found["dkim yard1._domainkey.news.example.org"] is State.WRONG
    assert found["return_path bounce.news.example.org"] is State.WRONG


async def test_a_return_path_with_records_of_its_own(server: ScriptedDns) -> None:
    setup = SendingSetup(
        domain="example.org",
        dkim=(),
        spf_terms=("ip4:203.0.113.5",),
        return_path="bounce.example.org",
        return_path_hosts=(MxRecord(10, "in.yard.example"),),
    )
    server.add("bounce.example.org", "MX", "10 in.yard.example.")
    server.add("bounce.example.org", "TXT", '"v=spf1 ip4:203.0.113.0/24 -all"')
    found = await states(server, setup)
    assert found["return_path bounce.example.org"] is State.GOOD
    assert found["return_path_spf bounce.example.org"] is State.GOOD


@pytest.mark.parametrize("fault", [Fault.TIMEOUT, Fault.SERVFAIL, Fault.REFUSED])
async def test_trouble_with_dns_calls_nothing_wrong(server: ScriptedDns, fault: Fault) -> None:
    set_up(server)
    for name, kind in (
        ("yard1._domainkey.news.example.org", "TXT"),
        ("bounce.news.example.org", "CNAME"),
        ("go.news.example.org", "CNAME"),
        ("news.example.org", "TXT"),
        ("news.example.org", "MX"),
    ):
        server.fault(name, kind, fault)
    found = await states(server)
    assert found.pop("dmarc _dmarc.news.example.org") is State.GOOD
    assert found.pop("alignment _dmarc.news.example.org") is State.GOOD
    assert set(found.values()) == {State.UNKNOWN}


async def test_names_of_our_addresses(server: ScriptedDns) -> None:
    server.add("1.2.0.192.in-addr.arpa", "PTR", "mx1.example.org.")
    server.add("2.2.0.192.in-addr.arpa", "PTR", "mx1.example.org.")
    resolver = Resolver([server.address], ManualClock(), PATIENT)
    ours = [ip_address(one) for one in ("192.0.2.1", "192.0.2.2", "2001:db8::1")]
    verdicts = await run_check(check_addresses(ours, "mx1.example.org"), resolver)
    assert [one.state for one in verdicts] == [State.GOOD, State.WRONG, State.MISSING]
    assert {one.purpose for one in verdicts} == {Purpose.ADDRESS_NAME}
    absent = await run_check(check_addresses(ours[2:], "mx1.example.org"), resolver)
    assert [one.state for one in absent] == [State.MISSING]
