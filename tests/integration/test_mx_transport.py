"""Own delivery to MX, against mail servers on loopback addresses and a scripted DNS."""

from mx_world import mx_world

from mailyard.sending.transport import Outcome


async def test_a_mail_goes_to_the_mail_server_of_its_domain() -> None:
    async with mx_world() as world:
        here, there = await world.peer("here.example"), await world.peer("there.example")
        answers = await world.sent("a@here.example", "b@there.example", content=b"hello\r\n")
        assert [one.outcome for one in answers] == [Outcome.ACCEPTED] * 2
        assert here.received == [("a@here.example", b"hello\r\n")]
        assert there.addresses == ["b@there.example"]
        assert here.helloes == ["me.example"]
        assert answers[0].reply.startswith("2.0.0 queued (mx.here.example [127.1.0.2], not enc")


async def test_many_mails_go_over_few_connections() -> None:
    async with mx_world() as world:
        peer = await world.peer("a.example")
        await world.sent(*(f"{n}@a.example" for n in range(60)))
        assert len(set(peer.addresses)) == 60
        assert peer.most_open <= 3
        assert peer.sessions <= 3
