"""What the resolver makes of a DNS server's answers, of its faults and of forgeries."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
import uvloop
from dns_server import Fault, ScriptedDns

from mailyard.core.clock import ManualClock
from mailyard.net.dns import DnsLimits, Resolver
from mailyard.net.dns_servers import DnsServer
from mailyard.protocol.dns_answer import (
    Answer,
    MxRecord,
    NoName,
    NoRecords,
    TemporaryFailure,
    TlsaRecord,
    Trouble,
)

PATIENT = DnsLimits(try_timeout_s=20.0, deadline_s=60.0)  # for what is answered
STEADY = DnsLimits(try_timeout_s=0.5, deadline_s=20.0)  # for silence among answers
QUICK = DnsLimits(try_timeout_s=0.2, deadline_s=3.0)  # for silence alone
MX = MxRecord(10, "mx.example.org")


@pytest.fixture
async def server() -> AsyncIterator[ScriptedDns]:
    async with ScriptedDns() as server:
        server.add("example.org", "MX", "10 mx.example.org.")
        server.add("mx.example.org", "A", "192.0.2.1")
        server.add("mx.example.org", "AAAA", "2001:db8::1")
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def resolver(server: ScriptedDns, clock: ManualClock) -> AsyncIterator[Resolver]:
    resolver = Resolver([server.address], clock, PATIENT)
    yield resolver
    await resolver.close()


def trouble(result: object) -> Trouble:
    assert isinstance(result, TemporaryFailure)
    return result.trouble


def records(result: object) -> tuple[object, ...]:
    assert isinstance(result, Answer)
    return result.records


# Every kind of record.


async def test_mail_exchangers(resolver: Resolver) -> None:
    assert await resolver.mx("Example.ORG.") == Answer((MX,), 300, False, "example.org")


async def test_addresses_of_both_families_come_as_one_answer(resolver: Resolver) -> None:
    found = await resolver.addresses("mx.example.org")
    assert set(records(found)) == {IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")}


async def test_the_strings_of_a_txt_record_are_joined(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.add("example.org", "TXT", '"v=spf1 inc" "lude:a.example -all"', '"b\\195\\164r\\255"')
    found = await resolver.txt("example.org")
    assert set(records(found)) == {"v=spf1 include:a.example -all", "bär\\xff"}


async def test_ptr_cname_ns_and_tlsa(server: ScriptedDns, resolver: Resolver) -> None:
    server.add("1.2.0.192.in-addr.arpa", "PTR", "MX.example.org.")
    server.add("alias.example.org", "CNAME", "mx.example.org.")
    server.add("example.org", "NS", "ns.example.org.")
    server.add("_25._tcp.mx.example.org", "TLSA", "3 1 1 " + "ab" * 32)
    assert records(await resolver.ptr(IPv4Address("192.0.2.1"))) == ("mx.example.org",)
    assert records(await resolver.cname("alias.example.org")) == ("mx.example.org",)
    assert records(await resolver.ns("example.org")) == ("ns.example.org",)
    assert records(await resolver.tlsa("mx.example.org")) == (TlsaRecord(3, 1, 1, b"\xab" * 32),)


async def test_an_internationalised_name_is_asked_for_in_its_ascii_form(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.add("xn--mnchen-3ya.example", "MX", "0 mx.example.org.")
    assert records(await resolver.mx("München.example")) == (MxRecord(0, "mx.example.org"),)


@pytest.mark.parametrize("name", ["", ".", "a..b", "x" * 64 + ".example", "x." * 130 + "example"])
async def test_a_name_that_cannot_stand_in_dns_does_not_exist(
    server: ScriptedDns, resolver: Resolver, name: str
) -> None:
    assert isinstance(await resolver.mx(name), NoName)
    assert server.asked == []


# "No" is not "not now".


async def test_a_name_that_does_not_exist_and_a_name_without_such_records(
    server: ScriptedDns, resolver: Resolver
) -> None:
    assert await resolver.mx("absent.example") == NoName(300, False)
    assert await resolver.mx("mx.example.org") == NoRecords(300, False)


async def test_one_family_of_addresses_is_enough(server: ScriptedDns, resolver: Resolver) -> None:
    server.add("four.example", "A", "192.0.2.4")
    server.add("six.example", "AAAA", "2001:db8::6")
    server.fault("six.example", "A", Fault.SERVFAIL)
    assert records(await resolver.addresses("four.example")) == (IPv4Address("192.0.2.4"),)
    assert records(await resolver.addresses("six.example")) == (IPv6Address("2001:db8::6"),)


async def test_no_address_in_one_family_and_trouble_with_the_other_is_trouble(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.add("four.example", "A", "192.0.2.4")
    server.fault("four.example", "A", Fault.SERVFAIL)
    assert trouble(await resolver.addresses("four.example")) is Trouble.SERVER_FAILURE


# Faults of servers.


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault.TIMEOUT, Trouble.TIMEOUT),
        (Fault.SERVFAIL, Trouble.SERVER_FAILURE),
        (Fault.REFUSED, Trouble.REFUSED),
        (Fault.REFERRAL, Trouble.REFUSED),
        (Fault.WRONG_ID, Trouble.TIMEOUT),
        (Fault.GARBAGE, Trouble.TIMEOUT),
        (Fault.TRUNCATED_AND_HANGS_UP, Trouble.UNREACHABLE),
        (Fault.TRUNCATED_AND_GARBAGE, Trouble.MALFORMED),
        (Fault.TRUNCATED_AND_OTHER, Trouble.MALFORMED),
    ],
)
async def test_a_fault_of_the_only_server_is_a_temporary_failure(
    server: ScriptedDns, fault: Fault, expected: Trouble
) -> None:
    server.fault("example.org", "MX", fault)
    limits = QUICK if expected is Trouble.TIMEOUT else PATIENT
    result = await Resolver([server.address], ManualClock(), limits).mx("example.org")
    assert trouble(result) is expected
    assert isinstance(result, TemporaryFailure) and str(server.address) in result.detail


async def test_why_dnssec_failed_is_told(server: ScriptedDns, resolver: Resolver) -> None:
    server.fault("example.org", "MX", Fault.BOGUS)
    result = await resolver.mx("example.org")
    assert isinstance(result, TemporaryFailure)
    assert "signature expired" in result.detail


async def test_a_closed_port_is_known_at_once(clock: ManualClock) -> None:
    async with ScriptedDns() as gone:
        address = gone.address
    resolver = Resolver([address], clock, replace(QUICK, try_timeout_s=60.0, deadline_s=60.0))
    assert trouble(await resolver.mx("example.org")) is Trouble.UNREACHABLE


@pytest.mark.parametrize(
    "fault", [Fault.TIMEOUT, Fault.SERVFAIL, Fault.REFUSED, Fault.GARBAGE, Fault.REFERRAL]
)
async def test_the_next_server_is_asked(
    server: ScriptedDns, clock: ManualClock, fault: Fault
) -> None:
    async with ScriptedDns() as broken:
        broken.fault("example.org", "MX", fault)
        resolver = Resolver([broken.address, server.address], clock, STEADY)
        assert records(await resolver.mx("example.org")) == (MX,)


async def test_a_server_that_is_silent_is_asked_again_and_one_that_failed_is_not(
    server: ScriptedDns, clock: ManualClock
) -> None:
    resolver = Resolver([server.address], clock, STEADY)
    server.fault("example.org", "MX", Fault.TIMEOUT, None)
    assert records(await resolver.mx("example.org")) == (MX,)
    server.fault("mx.example.org", "MX", Fault.SERVFAIL, None)
    assert trouble(await resolver.mx("mx.example.org")) is Trouble.SERVER_FAILURE
    assert server.times_asked("mx.example.org", "MX") == 1


async def test_a_silent_server_goes_behind_and_gets_one_question_as_its_trial(
    server: ScriptedDns, clock: ManualClock
) -> None:
    async with ScriptedDns() as silent:
        names = [f"host{number}.example" for number in range(4)]
        for name in names:
            server.add(name, "MX", "10 mx.example.org.")
            silent.fault(name, "MX", Fault.TIMEOUT)
        resolver = Resolver([silent.address, server.address], clock, STEADY)
        await resolver.mx(names[0])
        await resolver.mx(names[1])
        assert [name for name, _, _ in silent.asked] == [names[0]]
        clock.advance(60)
        await asyncio.gather(resolver.mx(names[2]), resolver.mx(names[3]))
        assert len(silent.asked) == 2


async def test_a_slow_name_holds_up_nobody_else(server: ScriptedDns, clock: ManualClock) -> None:
    server.fault("slow.example", "MX", Fault.TIMEOUT)
    resolver = Resolver([server.address], clock, STEADY)
    slow = asyncio.create_task(resolver.mx("slow.example"))
    while not server.asked:
        await asyncio.sleep(0)
    assert records(await resolver.mx("example.org")) == (MX,)
    assert not slow.done()
    assert trouble(await slow) is Trouble.TIMEOUT


async def test_the_deadline_bounds_all_servers_and_tries(server: ScriptedDns) -> None:
    server.fault("example.org", "MX", Fault.TIMEOUT)
    limits = replace(QUICK, try_timeout_s=60.0, deadline_s=0.1)
    resolver = Resolver([server.address], ManualClock(), limits)
    assert trouble(await resolver.mx("example.org")) is Trouble.TIMEOUT


async def test_no_more_questions_are_open_than_allowed(server: ScriptedDns) -> None:
    server.fault("slow.example", "MX", Fault.TIMEOUT)
    limits = replace(QUICK, open_questions=1, try_timeout_s=60.0, deadline_s=0.3)
    resolver = Resolver([server.address], ManualClock(), limits)
    slow = asyncio.create_task(resolver.mx("slow.example"))
    while not server.asked:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(resolver.mx("example.org"))
    await asyncio.sleep(0.1)
    assert server.asked == [("slow.example", "MX", "udp")]
    assert trouble(await slow) is Trouble.TIMEOUT
    await waiting


async def test_names_whose_server_is_silent_leave_room_for_first_tries(
    server: ScriptedDns,
) -> None:
    names = [f"slow{number}.example" for number in range(40)]
    for name in names:
        server.fault(name, "MX", Fault.TIMEOUT)
    limits = replace(PATIENT, open_questions=4, rounds=1_000, try_timeout_s=0.1)
    resolver = Resolver([server.address], ManualClock(), limits)
    slow = [asyncio.create_task(resolver.mx(name)) for name in names]
    while {name for name, _, _ in server.asked} != set(names):
        await asyncio.sleep(0.05)
    assert records(await resolver.mx("example.org")) == (MX,)
    assert not any(task.done() for task in slow)
    await resolver.close()
    await asyncio.gather(*slow, return_exceptions=True)


async def test_who_gets_no_place_in_time_hears_that_it_is_busy(server: ScriptedDns) -> None:
    limits = replace(QUICK, open_questions=0, deadline_s=0.1)
    resolver = Resolver([server.address], ManualClock(), limits)
    assert trouble(await resolver.mx("example.org")) is Trouble.BUSY


async def test_an_answer_too_long_for_a_datagram_comes_by_tcp(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.add("many.example", "MX", *(f"{n} mx{n}.many.example." for n in range(100)))
    assert len(records(await resolver.mx("many.example"))) == 100
    assert server.times_asked("many.example", "MX", "tcp") == 1


async def test_a_truncated_answer_is_never_used(server: ScriptedDns, resolver: Resolver) -> None:
    server.fault("example.org", "MX", Fault.TRUNCATED)
    assert records(await resolver.mx("example.org")) == (MX,)
    assert server.times_asked("example.org", "MX", "tcp") == 1


async def test_a_server_without_edns_is_asked_without(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.fault("example.org", "MX", Fault.NO_EDNS)
    assert records(await resolver.mx("example.org")) == (MX,)
    assert server.times_asked("example.org", "MX") == 2


# Forgeries.


@pytest.mark.parametrize(
    "fault",
    [
        Fault.WRONG_ID_FIRST,
        Fault.WRONG_QUESTION_FIRST,
        Fault.GARBAGE_FIRST,
        Fault.OTHER_NAMES,
        Fault.FLOOD,
    ],
)
async def test_what_does_not_belong_to_the_question_is_dropped(
    server: ScriptedDns, resolver: Resolver, fault: Fault
) -> None:
    server.fault("example.org", "MX", fault)
    assert records(await resolver.mx("example.org")) == (MX,)


async def test_a_flood_of_guesses_moves_the_question_to_tcp(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.fault("example.org", "MX", Fault.FLOOD)
    await resolver.mx("example.org")
    assert server.times_asked("example.org", "MX", "tcp") == 1


async def test_records_of_other_names_are_neither_used_nor_kept(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.fault("example.org", "MX", Fault.ONLY_OTHER_NAMES)
    assert isinstance(await resolver.mx("example.org"), NoRecords)
    assert isinstance(await resolver.mx("victim.example"), NoName)
    assert isinstance(await resolver.addresses("victim.example"), NoName)


# Aliases.


async def test_aliases_are_followed_and_the_last_name_is_told(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.add("a.example", "CNAME", "b.example.", ttl_s=100)
    server.add("b.example", "CNAME", "mx.example.org.", ttl_s=50)
    server.add("mx.example.org", "MX", "1 c.example.")
    assert await resolver.mx("a.example") == Answer(
        (MxRecord(1, "c.example"),), 50, False, "mx.example.org"
    )


async def test_an_alias_that_comes_alone_is_asked_on(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.add("a.example", "CNAME", "example.org.")
    server.fault("a.example", "MX", Fault.ALIAS_ALONE)
    assert records(await resolver.mx("a.example")) == (MX,)


async def test_an_alias_for_nothing_does_not_exist(server: ScriptedDns, resolver: Resolver) -> None:
    server.add("a.example", "CNAME", "absent.test.")
    assert isinstance(await resolver.mx("a.example"), NoName)


async def test_a_circle_of_aliases_is_a_temporary_failure(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.add("a.example", "CNAME", "b.example.")
    server.add("b.example", "CNAME", "a.example.")
    server.add("self.example", "CNAME", "self.example.")
    assert trouble(await resolver.mx("a.example")) is Trouble.ALIAS_LOOP
    assert trouble(await resolver.mx("self.example")) is Trouble.ALIAS_LOOP


@pytest.mark.parametrize("alone", [False, True])
async def test_a_chain_of_aliases_has_an_end(
    server: ScriptedDns, resolver: Resolver, alone: bool
) -> None:
    for number in range(30):
        server.add(f"n{number}.example", "CNAME", f"n{number + 1}.example.")
        if alone:
            server.fault(f"n{number}.example", "MX", Fault.ALIAS_ALONE)
    assert trouble(await resolver.mx("n0.example")) is Trouble.ALIAS_LOOP
    assert len(server.asked) <= 9


async def test_a_circle_over_several_questions_has_an_end(
    server: ScriptedDns, resolver: Resolver
) -> None:
    for name, target in (("a", "b"), ("b", "a")):
        server.add(f"{name}.example", "CNAME", f"{target}.example.")
        server.fault(f"{name}.example", "MX", Fault.ALIAS_ALONE)
    assert trouble(await resolver.mx("a.example")) is Trouble.ALIAS_LOOP


# DNSSEC.


async def test_the_ad_bit_counts_only_from_a_server_that_is_trusted_to_validate() -> None:
    async with ScriptedDns(authenticated=True) as server:
        server.add("example.org", "MX", "10 mx.example.org.")
        trusted = Resolver([server.address], ManualClock(), PATIENT)
        other = Resolver([replace(server.address, validates=False)], ManualClock(), PATIENT)
        for resolver, authenticated in ((trusted, True), (other, False)):
            for name in ("example.org", "absent.example"):
                result = await resolver.mx(name)
                assert not isinstance(result, TemporaryFailure)
                assert result.authenticated is authenticated


@pytest.mark.parametrize("unsigned", ["alias.example", "example.org", "none"])
async def test_every_step_of_an_alias_must_be_authenticated(unsigned: str) -> None:
    async with ScriptedDns(authenticated=True) as server:
        server.unsigned.add(unsigned)
        server.add("alias.example", "CNAME", "example.org.")
        server.add("example.org", "MX", "10 mx.example.org.")
        server.fault("alias.example", "MX", Fault.ALIAS_ALONE)
        result = await Resolver([server.address], ManualClock(), PATIENT).mx("alias.example")
        assert isinstance(result, Answer)
        assert result.authenticated is (unsigned == "none")


async def test_a_family_of_addresses_that_fails_does_not_switch_dane_off() -> None:
    async with ScriptedDns(authenticated=True) as server:
        server.add("mx.example.org", "A", "192.0.2.1")
        server.fault("mx.example.org", "AAAA", Fault.SERVFAIL)
        resolver = Resolver([server.address], ManualClock(), PATIENT)
        result = await resolver.addresses("mx.example.org")
        assert isinstance(result, Answer) and result.authenticated


# The cache.


async def test_an_answer_is_kept_for_its_time_to_live(
    server: ScriptedDns, resolver: Resolver, clock: ManualClock
) -> None:
    await resolver.mx("example.org")
    clock.advance(299)
    kept = await resolver.mx("EXAMPLE.org")
    assert isinstance(kept, Answer) and kept.ttl_s == pytest.approx(1)
    assert server.times_asked("example.org", "MX") == 1
    clock.advance(1)
    await resolver.mx("example.org")
    assert server.times_asked("example.org", "MX") == 2


@pytest.mark.parametrize(("ttl_s", "held_s"), [(0, 5), (86_400 * 30, 86_400)])
async def test_the_time_to_live_has_a_floor_and_a_ceiling(
    server: ScriptedDns, resolver: Resolver, ttl_s: int, held_s: float
) -> None:
    server.add("example.org", "MX", "10 mx.example.org.", ttl_s=ttl_s)
    result = await resolver.mx("example.org")
    assert isinstance(result, Answer) and result.ttl_s == held_s


async def test_no_is_kept_as_long_as_the_zone_says_up_to_a_ceiling(
    server: ScriptedDns, resolver: Resolver, clock: ManualClock
) -> None:
    await resolver.mx("absent.example")
    clock.advance(299)
    await resolver.mx("absent.example")
    assert server.times_asked("absent.example", "MX") == 1
    server.negative_ttl_s = 86_400
    assert await resolver.mx("never.example") == NoName(900, False)


async def test_a_failure_is_kept_for_seconds_only(
    server: ScriptedDns, resolver: Resolver, clock: ManualClock
) -> None:
    server.fault("example.org", "MX", Fault.SERVFAIL, None)
    await resolver.mx("example.org")
    assert trouble(await resolver.mx("example.org")) is Trouble.SERVER_FAILURE
    clock.advance(5)
    assert records(await resolver.mx("example.org")) == (MX,)


async def test_the_same_question_by_many_at_once_is_put_once(
    server: ScriptedDns, resolver: Resolver
) -> None:
    server.fault("example.org", "MX", Fault.SLOW)
    answers = await asyncio.gather(*(resolver.mx("example.org") for _ in range(100)))
    assert {records(answer) for answer in answers} == {(MX,)}
    assert server.times_asked("example.org", "MX") == 1


async def test_who_gives_up_takes_the_question_from_nobody_else(
    server: ScriptedDns, clock: ManualClock
) -> None:
    server.fault("example.org", "MX", Fault.SLOW)
    resolver = Resolver([server.address], clock, PATIENT)
    first, second = (asyncio.create_task(resolver.mx("example.org")) for _ in range(2))
    while not server.asked:
        await asyncio.sleep(0)
    first.cancel()
    assert records(await second) == (MX,)
    assert first.cancelled()


async def test_a_resolver_for_checks_keeps_nothing(server: ScriptedDns) -> None:
    limits = replace(PATIENT, ttl_ceiling_s=0, negative_ceiling_s=0, failure_s=0)
    resolver = Resolver([server.address], ManualClock(), limits)
    assert isinstance(await resolver.txt("example.org"), NoRecords)
    server.add("example.org", "TXT", '"new"')
    assert records(await resolver.txt("example.org")) == ("new",)


async def test_closing_ends_what_is_open(server: ScriptedDns, clock: ManualClock) -> None:
    server.fault("example.org", "MX", Fault.TIMEOUT)
    resolver = Resolver([server.address], clock, QUICK)
    waiting = asyncio.create_task(resolver.mx("example.org"))
    while not server.asked:
        await asyncio.sleep(0)
    await resolver.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_an_unreachable_network_is_a_temporary_failure(clock: ManualClock) -> None:
    resolver = Resolver([DnsServer("255.255.255.255")], clock, QUICK)
    assert trouble(await resolver.mx("example.org")) in (Trouble.UNREACHABLE, Trouble.TIMEOUT)


# The event loop that Mailyard runs on.


def test_the_same_on_uvloop() -> None:
    async def scenario() -> list[object]:
        async with ScriptedDns() as gone:
            closed = gone.address
        async with ScriptedDns() as server:
            server.add("example.org", "MX", "10 mx.example.org.")
            server.add("tcp.example", "MX", "10 mx.example.org.")
            server.fault("tcp.example", "MX", Fault.TRUNCATED)
            server.fault("forged.example", "MX", Fault.FLOOD)
            server.add("forged.example", "MX", "10 mx.example.org.")
            server.fault("slow.example", "MX", Fault.TIMEOUT)
            resolver = Resolver([server.address], ManualClock(), STEADY)
            names = ("example.org", "tcp.example", "forged.example", "slow.example")
            results = await asyncio.gather(*map(resolver.mx, names))
            results.append(await Resolver([closed], ManualClock(), QUICK).mx("example.org"))
            return list(results)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        *good, slow, refused = runner.run(scenario())
    assert [records(one) for one in good] == [(MX,)] * 3
    assert trouble(slow) is Trouble.TIMEOUT
    assert trouble(refused) is Trouble.UNREACHABLE
