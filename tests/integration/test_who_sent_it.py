"""Verdicts from a real DNS server to the inbox: judged as mail comes in, or later, or kept out."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from dns_server import Fault, ScriptedDns
from mail_platform import MailPlatform, mail_platform

from mailyard.bus.live import MESSAGE_AUTHENTICATED, MESSAGE_RECEIVED, MESSAGE_REFUSED
from mailyard.core.clock import SystemClock
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import Inbox, NewInbox
from mailyard.net.dns import DnsLimits, Resolver
from mailyard.net.special_names import unasked
from mailyard.protocol.authentication import Standing
from mailyard.protocol.dkim import Signer, generate_ed25519, record_text
from mailyard.queue.batch import Batch
from mailyard.queue.job import ANALYSIS
from mailyard.queue.settle import Settler
from mailyard.receiving.authenticate import Authenticator
from mailyard.receiving.gate import Gate
from mailyard.receiving.ingest import Ingest
from mailyard.receiving.late_verdict import PAUSES_S, LateJudge
from mailyard.receiving.verdict import REFUSED, WAITING, OnForged, Verdicts
from mailyard.storage.blobs.folder import FolderBlobs
from mailyard.storage.database import Database
from mailyard.storage.raw_mail import RawMail

KEY = generate_ed25519()
NOW_S = 1_700_000_000


def mail(author: str) -> bytes:
    return f"From: Ada <ada@{author}>\r\nTo: you@inbox.test\r\n\r\nAt four.\r\n".encode()


def signed(author: str, by: str) -> bytes:
    content = mail(author)
    return Signer(by, "s1", KEY).sign(content, NOW_S) + content


@dataclass
class World:
    """A platform that asks `dns` who sent its mail (from 192.0.2.1, as ada@peer.test)."""

    dns: ScriptedDns
    platform: MailPlatform
    verdicts: Verdicts
    late: LateJudge
    workspace_id: UUID

    async def inbox(self, name: str, policy: OnForged = OnForged.ACCEPT) -> Inbox:
        [made] = await self.platform.inboxes.create(self.workspace_id, [NewInbox(name)])
        async with self.platform.database.transaction() as tx:
            await self.verdicts.set_policy(self.workspace_id, made.id, made.address, policy, tx)
        return made

    async def standing(self, message_id: UUID) -> Standing | None:
        verdict = await self.verdicts.get(self.workspace_id, message_id)
        return verdict.standing if verdict else None

    async def inside(self, inbox: Inbox) -> list[UUID]:
        page = await self.platform.messages.list(self.workspace_id, inbox.id)
        return [one.id for one in page.items]

    async def outside(self, inbox: Inbox) -> list[tuple[UUID, str]]:
        page = await self.verdicts.held(self.workspace_id, inbox.id, inbox.retention_days, limit=10)
        return [(one.id, one.state) for one in page.items]

    async def judge(self) -> int:
        """Run the late jobs that are due; how many."""
        jobs = list(await self.platform.engine.lease([ANALYSIS], 10, 0.0, "test"))
        await self.late.handle(Batch(jobs, Settler(self.platform.engine), asyncio.Event()))
        return len(jobs)

    async def make_due(self) -> None:
        async with self.platform.database.connection() as connection:
            await connection.execute("UPDATE job_scheduled SET run_at = now()")

    async def events(self) -> list[str]:
        return [event.kind for event in await self.platform.told()]


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    clock = SystemClock()
    quick = DnsLimits(try_timeout_s=0.05, deadline_s=0.1, rounds=1, failure_s=0.0)
    async with ScriptedDns() as dns, mail_platform(database) as platform:
        dns.add("good.org", "TXT", '"v=spf1 ip4:192.0.2.1 -all"')
        dns.add("_dmarc.good.org", "TXT", '"v=DMARC1; p=reject"')
        dns.add("s1._domainkey.good.org", "TXT", f'"{record_text(KEY.public())}"')
        dns.add("_dmarc.bank.org", "TXT", '"v=DMARC1; p=reject"')
        dns.add("peer.test", "TXT", '"v=spf1 ip4:192.0.2.1 -all"')
        resolver = Resolver([dns.address], clock, quick)
        authenticator = Authenticator(
            dns=resolver, clock=clock, receiver="mx.inbox.test", unasked=unasked(own_servers=True)
        )
        gate = Gate(
            authenticator=authenticator,
            database=database,
            engine=platform.engine,
            live=platform.live,
        )
        platform.ingest = Ingest(database=database, live=platform.live, gate=gate)
        verdicts = Verdicts(database=database, authserv_id="mx.inbox.test")
        late = LateJudge(
            authenticator=authenticator,
            verdicts=verdicts,
            ingest=platform.ingest,
            database=database,
            engine=platform.engine,
            live=platform.live,
            clock=clock,
        )
        yield World(dns, platform, verdicts, late, uuid7())
        await resolver.close()


async def test_a_verdict_stands_beside_the_message_when_it_appears(world: World) -> None:
    await world.inbox("ada")
    good = await world.platform.deliver("ada@inbox.test", content=signed("good.org", "good.org"))
    verdict = await world.verdicts.get(world.workspace_id, good)
    assert verdict is not None
    assert verdict.standing is Standing.VERIFIED
    field = world.verdicts.field(verdict)
    assert field.startswith("mx.inbox.test;")
    for said in ("spf=pass", "smtp.mailfrom=ada@peer.test", "dkim=pass", "header.d=good.org",
                 "dmarc=pass", "header.from=good.org"):  # fmt: skip
        assert said in field
    forged = await world.platform.deliver("ada@inbox.test", content=signed("bank.org", "good.org"))
    assert await world.standing(forged) is Standing.FORGED
    assert await world.judge() == 0


async def test_a_question_is_put_once_and_names_without_a_server_never(world: World) -> None:
    await world.inbox("ada")
    for _ in range(3):
        await world.platform.deliver("ada@inbox.test", content=mail("good.org"))
    assert world.dns.times_asked("_dmarc.good.org", "TXT") == 1
    world.dns.asked.clear()
    gone = await world.platform.deliver("ada@inbox.test", content=mail("shop.invalid"))
    assert await world.standing(gone) is Standing.UNVERIFIED
    assert world.dns.asked == []


async def test_a_silent_server_delays_one_verdict_and_no_mail(world: World) -> None:
    ada = await world.inbox("ada")
    world.dns.fault("_dmarc.slow.org", "TXT", Fault.TIMEOUT)
    sent = [
        await world.platform.send("ada@inbox.test", content=mail(author))
        for author in ("slow.org", "good.org")
    ]
    await world.platform.run(await world.platform.lease())
    assert sorted(await world.inside(ada)) == sorted(sent)
    assert await world.standing(sent[0]) is None
    assert await world.standing(sent[1]) is Standing.FORGED  # unsigned, and not from its domain
    world.dns.fault("_dmarc.slow.org", "TXT", None)
    assert await world.judge() == 1
    assert await world.standing(sent[0]) is Standing.UNVERIFIED
    assert (await world.events())[-1] == MESSAGE_AUTHENTICATED


async def test_after_its_last_try_a_silent_server_leaves_it_unknown(world: World) -> None:
    await world.inbox("ada")
    world.dns.fault("_dmarc.slow.org", "TXT", Fault.TIMEOUT)
    message_id = await world.platform.deliver("ada@inbox.test", content=mail("slow.org"))
    for _ in PAUSES_S:
        assert await world.judge() == 1
        assert await world.standing(message_id) is None
        assert await world.judge() == 0  # not before its pause is over
        await world.make_due()
    assert await world.judge() == 1
    assert await world.standing(message_id) is Standing.UNKNOWN
    await world.make_due()
    assert await world.judge() == 0


async def test_an_inbox_that_refuses_keeps_forged_mail_out_and_others_get_it(world: World) -> None:
    strict = await world.inbox("strict", OnForged.REFUSE)
    plain = await world.inbox("plain", OnForged.TAG)
    both = ("strict@inbox.test", "plain@inbox.test")
    forged = await world.platform.deliver(*both, content=mail("bank.org"))
    good = await world.platform.deliver(*both, content=signed("good.org", "good.org"))
    assert await world.inside(strict) == [good]
    assert sorted(await world.inside(plain)) == sorted([good, forged])
    assert await world.outside(strict) == [(forged, REFUSED)]
    assert await world.standing(forged) is Standing.FORGED
    assert sorted(await world.events()) == sorted(
        [MESSAGE_RECEIVED, MESSAGE_REFUSED, MESSAGE_RECEIVED, MESSAGE_RECEIVED]
    )


async def test_such_an_inbox_shows_no_mail_before_its_verdict(world: World) -> None:
    strict = await world.inbox("strict", OnForged.REFUSE)
    world.dns.fault("_dmarc.bank.org", "TXT", Fault.TIMEOUT)
    world.dns.fault("_dmarc.slow.org", "TXT", Fault.TIMEOUT)
    forged = await world.platform.deliver("strict@inbox.test", content=mail("bank.org"))
    honest = await world.platform.deliver("strict@inbox.test", content=mail("slow.org"))
    assert await world.inside(strict) == []
    assert await world.outside(strict) == [(honest, WAITING), (forged, WAITING)]
    world.dns.fault("_dmarc.bank.org", "TXT", None)
    world.dns.fault("_dmarc.slow.org", "TXT", None)
    assert await world.judge() == 2
    assert await world.inside(strict) == [honest]
    assert await world.outside(strict) == [(forged, REFUSED)]
    assert [await world.standing(one) for one in (forged, honest)] == [
        Standing.FORGED,
        Standing.UNVERIFIED,
    ]


async def test_what_is_kept_out_can_be_let_in_and_outlives_others_deleting_it(
    world: World,
) -> None:
    strict = await world.inbox("strict", OnForged.REFUSE)
    await world.inbox("plain")
    both = ("strict@inbox.test", "plain@inbox.test")
    forged = await world.platform.deliver(*both, content=mail("bank.org"))
    await world.platform.messages.delete(world.workspace_id, [forged])
    rows = await world.verdicts.rows(world.workspace_id, [forged])
    async with world.platform.database.transaction() as tx:
        gone = await world.verdicts.let_go(world.workspace_id, [(strict.id, forged)], tx)
        await world.platform.ingest.admit(rows, gone, tx)
    assert await world.inside(strict) == [forged]
    assert await world.outside(strict) == []


async def test_large_mail_that_is_kept_out_is_let_in_whole(world: World, tmp_path: Path) -> None:
    """Its bytes lie in the blob store: its line says what it says all the same."""
    store = FolderBlobs(tmp_path / "blobs")
    await store.prepare()
    outside = RawMail(store, 1_000)
    strict = await world.inbox("strict", OnForged.REFUSE)
    platform = world.platform
    forged = mail("bank.org").replace(b"To:", b"Subject: the whole of it\r\nTo:")
    message_id = await platform.deliver("strict@inbox.test", content=forged)
    key = await outside.put(world.workspace_id, 0, message_id, forged + b"x" * 2_000)
    async with platform.database.connection() as connection:
        await connection.execute("UPDATE message SET raw = '', blob = $1", key)
    verdicts = Verdicts(database=platform.database, authserv_id="mx.inbox.test", raw_mail=outside)
    [held] = await verdicts.rows(world.workspace_id, [message_id])
    async with platform.database.transaction() as tx:
        gone = await verdicts.let_go(world.workspace_id, [(strict.id, message_id)], tx)
        await platform.ingest.admit([held], gone, tx)
    [line] = (await platform.messages.list(world.workspace_id, strict.id)).items
    assert (line.subject, line.from_address) == ("the whole of it", "ada@bank.org")


async def test_a_flaw_in_the_checks_holds_up_no_mail(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = await world.inbox("ada")

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("mailyard.receiving.authenticate.Inquiry", fail)
    message_id = await world.platform.deliver("ada@inbox.test")
    assert await world.inside(ada) == [message_id]
    for _ in PAUSES_S:
        await world.judge()
        await world.make_due()
    await world.judge()
    assert await world.standing(message_id) is Standing.UNKNOWN
