"""What workers and peers do to a wired application, one step at a time."""

import asyncio
from uuid import UUID

from mail_platform import MAIL, PEER, envelope

from mailyard.app import Application
from mailyard.cli.serving.worker import handlers
from mailyard.core.ids import MESSAGE, parse_type_id
from mailyard.protocol.smtp.reply import Reply
from mailyard.queue.batch import Batch
from mailyard.queue.job import LANES
from mailyard.queue.settle import Settler
from mailyard.receiving.accept import Acceptor

SENDER = "quokkamail@peer.test"


async def work(app: Application) -> None:
    """What a worker does until nothing is left to do."""
    by_kind = {handler.kind: handler for handler in handlers(app)}
    while jobs := await app.engine.lease(list(LANES), 100, 0.0, "test"):
        for job in jobs:
            batch = Batch([job], Settler(app.engine), asyncio.Event())
            await by_kind[job.kind].handle(batch)
            await app.engine.complete([job])


async def ask(acceptor: Acceptor, recipient: str) -> Reply:
    """RCPT."""
    answer = acceptor.accept_recipient(PEER, SENDER, recipient)
    return answer if isinstance(answer, Reply) else await answer


async def receive(acceptor: Acceptor, *recipients: str, content: bytes = MAIL) -> UUID:
    """A whole transaction; the id that the 250 names."""
    for recipient in recipients:
        reply = await ask(acceptor, recipient)
        assert reply.code == 250, reply
    answer = acceptor.accept_message(envelope(*recipients, reverse_path=SENDER), content)
    answer = answer if isinstance(answer, Reply) else await answer
    assert answer.code == 250, answer
    return parse_type_id(MESSAGE, answer.text.rpartition(" ")[2])
