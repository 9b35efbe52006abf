"""Whom a workspace takes mail from: lists, limits of a source, greylisting, spam; real rspamd."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from mail_platform import PEER, about, envelope

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.core.clock import SystemClock
from mailyard.core.errors import InvalidInput
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox import Inboxes
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.net.guard import networks
from mailyard.net.http import HttpClient
from mailyard.protocol.smtp.envelope import Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.ratelimit.adapters.memory import MemoryRateLimit
from mailyard.receiving.accept import Acceptor
from mailyard.receiving.policy import Doorkeeper, MailPolicies, MailPolicy
from mailyard.receiving.scan import REJECTED_POINTS, RspamdScanner, RulesScanner
from mailyard.storage.database import Database

GTUBE = about("try") + b"XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"
OTHER = Peer(address="198.51.100.9", port=25, hello="other.test", esmtp=True, tls=False)


class House:
    """A listener's deciders over one database, with two inboxes of two workspaces."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.policies = MailPolicies(database=database)
        self.door = Doorkeeper(
            database=database,
            limits=MemoryRateLimit(clock=SystemClock()),
            scanner=RulesScanner(),
        )
        engine = PostgresEngine(database=database, bus=MemoryBus(), upkeep_s=0)
        self.acceptor = Acceptor(
            database=database, engine=engine, hostname="mx.test", door=self.door
        )
        self.inboxes = Inboxes(database=database, domains=("inbox.test",))

    async def workspace(self, address: str) -> UUID:
        workspace_id = uuid7()
        await self.database.pool.execute("INSERT INTO workspace VALUES ($1, 'Shop')", workspace_id)
        await self.inboxes.create(workspace_id, [NewInbox(address)])
        return workspace_id

    async def say(self, workspace_id: UUID, policy: MailPolicy) -> None:
        async with self.database.transaction() as tx:
            await self.policies.set(workspace_id, policy, tx)
        await self.door.refresh()

    async def ask(self, address: str, sender: str = "ada@peer.test", peer: Peer = PEER) -> int:
        answer = self.acceptor.accept_recipient(peer, sender, address)
        return (answer if isinstance(answer, Reply) else await answer).code

    async def send(self, content: bytes, *addresses: str) -> int:
        for address in addresses:
            assert await self.ask(address) == 250
        answer = self.acceptor.accept_message(envelope(*addresses), content)
        return (answer if isinstance(answer, Reply) else await answer).code


@pytest.fixture
async def house(database: Database) -> AsyncIterator[House]:
    house = House(database)
    yield house
    await house.acceptor.close()


async def test_lists_hold_for_the_workspace_that_has_them(house: House) -> None:
    strict, open_ = await house.workspace("strict"), await house.workspace("open")
    assert house.door.idle and open_
    await house.say(
        strict,
        MailPolicy(allowed=("vip@bad.example",), blocked=("bad.example", "198.51.100.0/24")),
    )
    assert await house.ask("strict@inbox.test") == 250
    assert await house.ask("strict@inbox.test", "x@sub.bad.example") == 550
    assert await house.ask("strict@inbox.test", "VIP@bad.example") == 250
    assert await house.ask("strict@inbox.test", peer=OTHER) == 550
    assert await house.ask("open@inbox.test", "x@bad.example", OTHER) == 250
    assert await house.ask("nobody@inbox.test", "x@bad.example") == 550


async def test_a_source_has_its_rate_and_a_stranger_waits_once(house: House) -> None:
    owner = await house.workspace("box")
    await house.say(owner, MailPolicy(source_per_minute=2))
    assert [await house.ask("box@inbox.test") for _ in range(3)] == [250, 250, 451]
    assert await house.ask("box@inbox.test", peer=OTHER) == 250

    await house.say(owner, MailPolicy(greylist_s=60, allowed=("198.51.100.0/24",)))
    assert await house.ask("box@inbox.test") == 451
    assert await house.ask("box@inbox.test") == 451
    assert await house.ask("box@inbox.test", peer=OTHER) == 250
    await house.database.pool.execute("UPDATE greylist SET first_at = first_at - interval '61 s'")
    neighbour = Peer(address="192.0.2.77", port=25, hello="peer.test", esmtp=True, tls=False)
    assert await house.ask("box@inbox.test", peer=neighbour) == 250  # the same network
    assert await house.ask("box@inbox.test", "bob@peer.test") == 451


async def test_spam_is_tagged_or_refused_from_the_points_that_a_workspace_says(
    house: House,
) -> None:
    refusing, tagging = await house.workspace("refuses"), await house.workspace("tags")
    await house.say(refusing, MailPolicy(spam_refuse_at=15.0))
    await house.say(tagging, MailPolicy(spam_tag_at=5.0))
    assert await house.send(about("hello"), "refuses@inbox.test") == 250
    assert await house.send(GTUBE, "refuses@inbox.test") == 550
    assert await house.send(GTUBE, "tags@inbox.test") == 250
    # For both: it is taken, for one of them would have it, and says what it is.
    assert await house.send(GTUBE, "refuses@inbox.test", "tags@inbox.test") == 250
    raw = await house.database.pool.fetch("SELECT raw FROM message ORDER BY id")
    tagged = [b"\r\nX-Mailyard-Spam: yes, " in row["raw"] for row in raw]
    assert tagged == [False, True, True, True]


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        (MailPolicy(blocked=("not an entry",)), "blocked.0"),
        (MailPolicy(allowed=("a.example", "192.0.2.0/99")), "allowed.1"),
        (MailPolicy(source_per_minute=0), "source_per_minute"),
        (MailPolicy(spam_tag_at=-1.0), "spam_tag_at"),
    ],
)
async def test_what_is_no_policy_is_refused_by_name(
    house: House, policy: MailPolicy, field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await house.say(await house.workspace("x"), policy)
    assert refused.value.field == field


CONFIG = """
options {{ pidfile = "{folder}/pid"; filters = "";
          dns {{ nameserver = ["127.0.0.1:9:1"]; timeout = 0.1s; retransmits = 1; }} }}
logging {{ type = "file"; filename = "{folder}/log"; level = "error"; }}
actions {{ reject = 15; add_header = 6; }}
worker {{ type = "normal"; bind_socket = "127.0.0.1:{port}"; count = 1; }}
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def rspamd_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if shutil.which("rspamd") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("rspamd is not installed (tests/services/install.sh)")
        pytest.skip("rspamd is not installed (tests/services/install.sh)")
    yield tmp_path_factory.mktemp("rspamd")


async def test_rspamd_scores_and_our_rules_do_while_it_is_away(rspamd_folder: Path) -> None:
    port = free_port()
    config = rspamd_folder / "rspamd.conf"
    config.write_text(CONFIG.format(folder=rspamd_folder, port=port))
    quiet = asyncio.subprocess.DEVNULL
    daemon = await asyncio.create_subprocess_exec(
        "rspamd", "-f", "-i", "-c", str(config), stdout=quiet, stderr=quiet
    )
    http = HttpClient(allowed=networks(["127.0.0.0/8"]))
    scanner = RspamdScanner(http=http, url=f"http://127.0.0.1:{port}", otherwise=RulesScanner())
    try:
        async with asyncio.timeout(30):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    await asyncio.sleep(0.1)
                else:
                    writer.close()
                    break
        found = await scanner.ask(PEER, "ada@peer.test", ["you@inbox.test"], GTUBE)
        assert found.points >= REJECTED_POINTS
        assert "GTUBE" in {name for name, _ in found.fired}
        plain = await scanner.ask(PEER, "ada@peer.test", ["you@inbox.test"], about("hello"))
        assert plain.points < REJECTED_POINTS
    finally:
        daemon.terminate()
        await daemon.wait()
    away = await scanner.scan(PEER, "ada@peer.test", ["you@inbox.test"], GTUBE)
    assert away.points >= 1000.0
    await http.close()
