"""Drives sessions without a socket: bytes in, replies and stored messages or verdicts out."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mailyard.protocol.smtp.client import ClientSession
from mailyard.protocol.smtp.client_mail import ClientEvent, ClientMail, Fate, MailDone, StartTls
from mailyard.protocol.smtp.envelope import Envelope
from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.server import ServerSession
from mailyard.protocol.smtp.session import (
    Event,
    MessageReceived,
    RecipientAsked,
    SessionConfig,
    TlsRequested,
)

CONFIG = SessionConfig("mx.example", tls_offered=True)
TAKEN = Reply(250, "2.1.5", "OK")
UNKNOWN_USER = Reply(550, "5.1.1", "No such mailbox")
STORED = Reply(250, "2.0.0", "Stored")


def take_example(address: str) -> Reply:
    """Addresses that begin with "no" are unknown."""
    return UNKNOWN_USER if address.startswith("no") else TAKEN


@dataclass
class Driver:
    """Answers every question at once, and keeps what was said and stored."""

    config: SessionConfig = CONFIG
    decide: Callable[[str], Reply] = take_example
    stored: list[tuple[Envelope, bytes]] = field(default_factory=list)
    said: bytes = b""
    store_reply: Reply = STORED

    def __post_init__(self) -> None:
        self.session = ServerSession(self.config, "192.0.2.1", 4711)
        self.said = self.session.take_output()

    def feed(self, *pieces: bytes) -> bytes:
        """What the session says to `pieces`, each arriving on its own."""
        before = len(self.said)
        for piece in pieces:
            self.session.receive(piece)
            while (event := self.session.next_event()) is not None:
                self.handle(event)
            self.said += self.session.take_output()
        return self.said[before:]

    def handle(self, event: Event) -> None:
        if isinstance(event, RecipientAsked):
            self.session.answer(event, self.decide(event.address))
        elif isinstance(event, MessageReceived):
            self.stored.append((event.envelope, event.content))
            self.session.answer(event, self.store_reply)
        else:
            assert isinstance(event, TlsRequested)
            self.said += self.session.take_output()
            self.session.tls_started()

    def codes(self, *pieces: bytes) -> list[int]:
        """The codes of the replies to `pieces`."""
        return codes_of(self.feed(*pieces))


def codes_of(said: bytes) -> list[int]:
    """The codes of whole replies, one for each."""
    lines = said.split(b"\r\n")
    assert lines.pop() == b""
    return [int(line[:3]) for line in lines if line[3:4] != b"-"]


def one_by_one(data: bytes) -> Iterable[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def greeted(**changes: object) -> Driver:
    """A driver after EHLO."""
    driver = Driver(**changes)  # type: ignore[arg-type]
    driver.feed(b"EHLO client.example\r\n")
    return driver


class ClientDriver:
    """A client session with a queue of mails in front of it."""

    def __init__(
        self, *mails: ClientMail, starttls: StartTls = StartTls.NONE, pipeline: int = 0
    ) -> None:
        self.queue = list(mails)
        self.events: list[ClientEvent] = []
        self.session = ClientSession("me.example", self.take, starttls, pipeline=pipeline)

    def take(self) -> ClientMail | None:
        return self.queue.pop(0) if self.queue else None

    def hears(self, data: bytes) -> bytes:
        """What the client writes after `data`."""
        self.session.receive(data)
        return self.written()

    def written(self) -> bytes:
        output = self.session.take_output()
        self.events += self.session.take_events()
        return output

    def fates(self) -> list[list[Fate]]:
        """What became of the recipients of each mail that is done."""
        done = [event for event in self.events if isinstance(event, MailDone)]
        return [[verdict.fate for verdict in event.verdicts] for event in done]
