"""The client for tests and scripts without an event loop."""

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from time import monotonic, sleep
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from mailyard.client import calls, wire
from mailyard.client.calls import WAIT_S, Ask, Given, Page, Waiting
from mailyard.client.errors import ClientError, NoAnswer
from mailyard.client.mail import Mail, MailSummary, moment

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")
_CONNECT_S = 10.0
_IDLE_CONNECTIONS = 16


class Mailyard:
    """A workspace of Mailyard, by an API key of it.

    Without arguments it is found by MAILYARD_URL and MAILYARD_API_KEY; raises WrongSetting. What
    the API refuses is Refused, and NoAnswer is raised when it does not answer. Threads may share
    one.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self._target = wire.target(url, api_key)
        self._idle: list[socket.socket] = []
        self._tls: ssl.SSLContext | None = None

    def __enter__(self) -> "Mailyard":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        while self._idle:
            self._idle.pop().close()

    def create_inbox(
        self,
        address: str | None = None,
        *,
        ttl_s: float | None = None,
        name: str = "",
        labels: Sequence[str] = (),
    ) -> "Inbox":
        """Make an inbox: under `address` (whole, or the part before @) or a generated one; for
        `ttl_s` seconds, or for ever."""
        return Inbox(self, self.ask(calls.create_inbox(address, ttl_s, name, labels)))

    def inbox(self, id_or_address: str) -> "Inbox":
        """An inbox that is there. Raises Refused (404)."""
        return Inbox(self, self.ask(calls.find_inbox(id_or_address)))

    def inboxes(self, label: str = "") -> Iterator["Inbox"]:
        """Living inboxes, newest first."""
        for item in self._pages(lambda cursor: calls.list_inboxes(label, cursor)):
            yield Inbox(self, item)

    def search(self, query: str, *, inbox_id: str = "", limit: int = 50) -> list[MailSummary]:
        """The newest mails, up to 100, that a query finds (`from:shop invoice`, as the API's
        documentation says), in one inbox or in all. Mail that has just come may not be indexed."""
        return (self.ask(calls.search(query, inbox_id, limit))).items

    def read(self, message_id: str) -> Mail:
        """A mail by its id. Raises Refused (404)."""
        return self.ask(calls.read_mail(message_id))

    def raw(self, message_id: str) -> bytes:
        """A mail's bytes as they came."""
        return self.ask(calls.fetch(f"/v1/messages/{message_id}/raw"))

    def attachment(self, message_id: str, index: int) -> bytes:
        """An attachment's bytes; `index` as in `Mail.files`."""
        return self.ask(calls.fetch(f"/v1/messages/{message_id}/attachments/{index}"))

    def delete(self, message_id: str) -> None:
        """Delete a mail from all inboxes."""
        self.ask(calls.delete(f"/v1/messages/{message_id}"))

    def send(
        self,
        *,
        sender: str,
        to: str | Sequence[str],
        subject: str,
        text: str | None = None,
        html: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Send a mail: durable when this returns. The email's id."""
        return self.ask(calls.send(sender, to, subject, text, html, headers or {}))

    def reply(self, mail: Mail, *, text: str | None = None, html: str | None = None) -> str:
        """Answer a mail in its thread, from the address it came to. The email's id."""
        return self.ask(calls.reply(mail, text, html))

    def ask(self, ask: Ask[T]) -> T:
        """Make any call, again where that may help. Raises Refused, NoAnswer."""
        tries = 0
        while True:
            try:
                return ask.take(self._exchange(ask))
            except ClientError as error:
                tries += 1
                again = calls.again_in_s(error, tries)
                if again is None:
                    raise
            sleep(again)

    def _pages(self, page: Callable[[str | None], Ask[Page[T]]]) -> Iterator[T]:
        cursor: str | None = None
        while True:
            found = self.ask(page(cursor))
            yield from found.items
            cursor = found.cursor
            if cursor is None:
                return

    def _exchange(self, ask: Ask[Any]) -> wire.Answer:
        sent = wire.request(
            self._target, ask.method, ask.path, ask.query, ask.body, ask.idempotency_key
        )
        until = monotonic() + ask.timeout_s
        while True:
            connection = self._idle.pop() if self._idle else None
            reader = wire.AnswerReader()
            used = connection is not None
            try:
                connection = connection or self._connect()
                connection.sendall(sent)
                while reader.answer is None:
                    connection.settimeout(max(0.001, until - monotonic()))
                    reader.feed(connection.recv(wire.RECEIVE_BYTES))
            except (OSError, NoAnswer) as error:
                if connection is not None:
                    connection.close()
                if used and not reader.started and not isinstance(error, TimeoutError):
                    continue  # it was closed while it lay idle
                if isinstance(error, NoAnswer):
                    raise
                raise NoAnswer(f"no answer from {self._target.authority}: {error}") from error
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
            if reader.keeps and len(self._idle) < _IDLE_CONNECTIONS:
                self._idle.append(connection)
            else:
                connection.close()
            return reader.answer

    def _connect(self) -> socket.socket:
        where = self._target
        connection = socket.create_connection((where.host, where.port), timeout=_CONNECT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not where.tls:
            return connection
        import ssl

        self._tls = self._tls or ssl.create_default_context()
        return self._tls.wrap_socket(connection, server_hostname=where.host)


class Inbox:
    """An inbox: an address to give away, and the mail that comes to it."""

    def __init__(self, mailyard: Mailyard, item: Mapping[str, Any]) -> None:
        self._mailyard = mailyard
        self._given = Given()
        self.id: str = item["id"]
        self.address: str = item["address"]
        self.expires_at: datetime | None = item["expires_at"] and moment(item["expires_at"])

    def __repr__(self) -> str:
        return f"<Inbox {self.address}>"

    def wait_for(
        self,
        *,
        subject: str = "",
        from_: str = "",
        after: str = "",
        timeout_s: float = WAIT_S,
    ) -> Mail:
        """The oldest mail with `subject` in its subject and `from_` in its sender, in any case,
        that this object has not given yet (and that came after the mail `after`); as soon as it is
        there. Raises NoMail."""
        waiting = Waiting(
            inbox_id=self.id,
            address=self.address,
            from_=from_,
            subject=subject,
            timeout_s=timeout_s,
            given=self._given,
            now=monotonic(),
            after=after,
        )
        while (ask := waiting.ask(monotonic())) is not None:
            mail = waiting.heard(self._mailyard.ask(ask))
            if mail is not None:
                return mail
        raise waiting.missed(self._mailyard.ask(calls.list_mail(self.id, "", "", None)).items)

    def mails(self, *, subject: str = "", from_: str = "") -> Iterator[MailSummary]:
        """What lies in it, newest first."""
        return self._mailyard._pages(
            lambda cursor: calls.list_mail(self.id, from_, subject, cursor)
        )

    def delete(self) -> None:
        """Delete it with its mail."""
        self._mailyard.ask(calls.delete(f"/v1/inboxes/{self.id}"))
