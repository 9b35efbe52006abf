"""Shaping as own delivery does it: rules on answers, limits over all workers, people's word."""

import asyncio

from mx_world import Session, mx_world
from smtp_wire import until

from mailyard.core.clock import SystemClock
from mailyard.ratelimit.adapters.postgres import PostgresRateLimit
from mailyard.ratelimit.adapters.postgres_leases import PostgresLeases
from mailyard.sending.shape.book import read_book
from mailyard.sending.shape.site import Mode
from mailyard.sending.shaping import Shaping
from mailyard.sending.shaping_board import SiteBoard
from mailyard.sending.transport import Outcome
from mailyard.storage.database import Database

RULES = """
[[receiver.default.rule]]
name = "block"
code = ["421"]
text = "blocked"
pause = "10 min"
alert = "we are blocked"
[[receiver.default.rule]]
name = "slow"
code = ["451"]
slow = 0.5
retry = "10 min"
[[receiver.default.rule]]
name = "gone"
code = ["550"]
text = "no such"
suppress = true
recipient_only = true
[[receiver.default.rule]]
name = "never"
code = ["452"]
text = "no use"
fail = true
"""


async def test_rules_say_what_becomes_of_a_mail() -> None:
    async with mx_world() as world:
        said = {
            "slow@a.example": "451 4.7.0 slow down",
            "gone@a.example": "550 5.1.1 no such user",
            "policy@a.example": "550 5.7.1 no such luck with you",
            "useless@a.example": "452 4.2.0 no use",
        }

        async def by_recipient(session: Session) -> str:
            return said.get(session.recipient, "250 ok")

        await world.peer("a.example", says={"RCPT": by_recipient})
        world.transport(RULES)
        await world.sent(*said, "fine@a.example")
        outcomes = {address: one.outcome for address, one in world.by_address.items()}
        assert outcomes == {
            "slow@a.example": Outcome.LATER,
            "gone@a.example": Outcome.NEVER,
            "policy@a.example": Outcome.NEVER,
            "useless@a.example": Outcome.NEVER,
            "fine@a.example": Outcome.ACCEPTED,
        }
        slow = world.by_address["slow@a.example"]
        assert slow.tried and slow.retry_at is not None
        wait_s = (slow.retry_at - SystemClock().now()).total_seconds()
        assert 590 < wait_s < 730
        # A policy rejection is about us: it never suppresses a recipient.
        assert [(address, text) for _, address, _, text in world.suppressed] == [
            ("gone@a.example", "gone: 550 5.1.1 no such user")
        ]


async def test_a_pause_hands_mail_back_untried_and_leaves_the_others_alone() -> None:
    async with mx_world() as world:
        await world.peer("bad.example", says={"MAIL": "421 4.7.0 blocked"})
        good = await world.peer("good.example")
        world.transport(RULES)
        [first] = await world.sent("a@bad.example")
        assert (first.outcome, first.tried, first.reply_code) == (Outcome.LATER, True, 421)
        [second, other] = await world.sent("b@bad.example", "c@good.example")
        assert (second.outcome, second.tried) == (Outcome.LATER, False)
        assert second.reply.startswith("not tried: block: 421 4.7.0 blocked")
        assert second.retry_at is not None
        assert (second.retry_at - SystemClock().now()).total_seconds() > 500
        assert good.addresses == ["c@good.example"] and other.outcome is Outcome.ACCEPTED


async def test_domains_with_the_same_mail_servers_share_connections() -> None:
    async with mx_world() as world:
        peer = await world.peer("a.example", "b.example", "c.example")
        world.transport('[receiver.own]\nmx = ["a.example"]\nconnections = 1\n'
                        "messages_per_connection = 4\n")  # fmt: skip
        await world.sent(*(f"{n}@{name}.example" for n in range(4) for name in "abc"))
        assert len(peer.received) == 12
        assert peer.most_open == 1
        assert peer.sessions == 3


async def test_limits_hold_over_all_workers(database: Database) -> None:
    async with mx_world() as world:
        peer = await world.peer("a.example")
        for _ in range(3):
            world.transport(
                '[receiver.own]\nmx = ["a.example"]\nconnections = 2\nrate = "40/s"\n',
                rate=PostgresRateLimit(database=database),
                leases=PostgresLeases(database=database),
            )
        began = asyncio.get_running_loop().time()
        for n in range(90):
            world.send(f"{n}@a.example", through=n % 3)
        # Who finds all connections taken comes again, as its queue would let it.
        while len(peer.received) < 60:
            back = [a for a, one in world.by_address.items() if one.outcome is Outcome.LATER]
            for at, address in enumerate(back):
                assert not world.by_address.pop(address).tried
                world.send(address, through=at % 3)
            await asyncio.sleep(0.05)
        took_s = asyncio.get_running_loop().time() - began
        assert peer.most_open <= 2
        # At most the burst of a second, and the rate from then on.
        assert len(peer.received) <= 40 + 40 * took_s + 1


async def test_what_one_worker_learns_all_know_and_a_person_has_the_last_word(
    database: Database,
) -> None:
    book = read_book([("a.toml", _whole(RULES))])
    shaping = Shaping(database=database, book=book)
    async with mx_world() as world:
        peer = await world.peer("a.example")
        for _ in range(2):
            world.transport(RULES, board=SiteBoard(database=database, book=book, every_s=0.1))
        first, second = world.transports
        world.send("warm@a.example", through=1)  # the other one is at work, and well
        await world.settled()
        peer.says["MAIL"] = "421 4.7.0 <someone@a.example> blocked"
        world.send("a@a.example", through=0)
        await world.settled()

        key = "site::mx.a.example"
        await until(lambda: second.dispatch.state(key).paused_until_s > 0)
        seen = await shaping.get(key)
        assert (seen.mode, seen.receiver) == (Mode.PAUSED, "default")
        assert seen.why == "block: 421 4.7.0 <…@a.example> blocked"
        assert seen.answers[0].text == "421 4.7.0 <…@a.example> blocked"
        kinds = {one.kind for one in await shaping.happenings(key)}
        assert {"paused", "alert"} <= kinds

        peer.says.clear()
        async with database.transaction() as tx:
            await shaping.resume("mx.a.example", tx)
        await until(lambda: not any(t.dispatch.state(key).paused_until_s for t in (first, second)))
        world.send("again@a.example", through=1)
        await world.settled()
        assert peer.addresses == ["warm@a.example", "again@a.example"]

        async with database.transaction() as tx:
            await shaping.pause("mx.a.example", 3600.0, "by ada: maintenance", tx)
        await until(lambda: all(t.dispatch.state(key).paused_until_s for t in (first, second)))
        world.send("later@a.example", through=0)
        await world.settled()
        assert world.by_address["later@a.example"].reply == "not tried: by ada: maintenance"


def _whole(rules: str) -> str:
    limits = 'connections = 3\nmessages_per_connection = 100\nrate = "10000/s"\n'
    return f'[receiver.default]\n{limits}recover_every = "1 min"\nrecover_step = 0.1\n{rules}'


async def test_mail_does_not_wait_for_a_site_that_does_not_answer() -> None:
    """It goes back untried; what comes of the connection is told to the next mail."""
    async with mx_world() as world:

        async def late(session: Session) -> str:
            await asyncio.wait_for(session.reader.read(), 20)
            return ""

        await world.peer("deaf.example", says={"GREETING": late})
        world.transport(options={"patience_s": 0.1, "reply_timeout_s": 2.0})
        [first] = await world.sent("a@deaf.example")
        assert (first.tried, first.reply) == (
            False, "not tried: no connection to its mail servers yet",
        )  # fmt: skip
        pools = world.transports[0]._pools.every()
        await until(lambda: all(pool._away for pool in pools))
        [second] = await world.sent("b@deaf.example")
        assert second.tried and second.reply.startswith("no reply within")


async def test_a_slow_site_does_not_take_the_places_of_the_others() -> None:
    async with mx_world() as world:
        await world.peer("slow.example")
        good = await world.peer("good.example")
        world.transport('[receiver.slow]\nmx = ["slow.example"]\nrate = "2/s"\n',
                        options={"turn_s": 0.1})  # fmt: skip
        world.send(*(f"{n}@slow.example" for n in range(60)))
        await until(lambda: len(world.outstanding) <= 12)
        back = [one for one in world.answers.values() if not one.tried]
        at = sorted(one.retry_at.timestamp() for one in back if one.retry_at is not None)
        assert len(back) >= 45
        # One after another, at the site's rate.
        assert at[-1] - at[0] >= (len(at) - 1) / 2 - 1
        world.send("a@good.example")
        await until(lambda: good.addresses == ["a@good.example"])
