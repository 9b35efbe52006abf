"""The client for asyncio: the same calls, awaited."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from mailyard.client import calls, wire
from mailyard.client.calls import WAIT_S, Ask, Given, Page, Waiting
from mailyard.client.errors import ClientError, NoAnswer
from mailyard.client.mail import Mail, MailSummary, moment

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")
_IDLE_CONNECTIONS = 64

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class AsyncMailyard:
    """As `Mailyard`, within one event loop."""

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        self._target = wire.target(url, api_key)
        self._idle: list[_Connection] = []
        self._tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> "AsyncMailyard":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the connections."""
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def create_inbox(
        self,
        address: str | None = None,
        *,
        ttl_s: float | None = None,
        name: str = "",
        labels: Sequence[str] = (),
    ) -> "AsyncInbox":
        """Make an inbox: under `address` (whole, or the part before @) or a generated one; for
        `ttl_s` seconds, or for ever."""
        return AsyncInbox(self, await self.ask(calls.create_inbox(address, ttl_s, name, labels)))

    async def inbox(self, id_or_address: str) -> "AsyncInbox":
        """An inbox that is there. Raises Refused (404)."""
        return AsyncInbox(self, await self.ask(calls.find_inbox(id_or_address)))

    async def inboxes(self, label: str = "") -> AsyncIterator["AsyncInbox"]:
        """Living inboxes, newest first."""
        async for item in self._pages(lambda cursor: calls.list_inboxes(label, cursor)):
            yield AsyncInbox(self, item)

    async def search(self, query: str, *, inbox_id: str = "", limit: int = 50) -> list[MailSummary]:
        """The newest mails, up to 100, that a query finds (`from:shop invoice`, as the API's
        documentation says), in one inbox or in all. Mail that has just come may not be indexed."""
        return (await self.ask(calls.search(query, inbox_id, limit))).items

    async def read(self, message_id: str) -> Mail:
        """A mail by its id. Raises Refused (404)."""
        return await self.ask(calls.read_mail(message_id))

    async def raw(self, message_id: str) -> bytes:
        """A mail's bytes as they came."""
        return await self.ask(calls.fetch(f"/v1/messages/{message_id}/raw"))

    async def attachment(self, message_id: str, index: int) -> bytes:
        """An attachment's bytes; `index` as in `Mail.files`."""
        return await self.ask(calls.fetch(f"/v1/messages/{message_id}/attachments/{index}"))

    async def delete(self, message_id: str) -> None:
        """Delete a mail from all inboxes."""
        await self.ask(calls.delete(f"/v1/messages/{message_id}"))

    async def send(
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
        return await self.ask(calls.send(sender, to, subject, text, html, headers or {}))

    async def reply(self, mail: Mail, *, text: str | None = None, html: str | None = None) -> str:
        """Answer a mail in its thread, from the address it came to. The email's id."""
        return await self.ask(calls.reply(mail, text, html))

    async def ask(self, ask: Ask[T]) -> T:
        """Make any call, again where that may help. Raises Refused, NoAnswer."""
        tries = 0
        while True:
            try:
                return ask.take(await self._exchange(ask))
            except ClientError as error:
                tries += 1
                again = calls.again_in_s(error, tries)
                if again is None:
                    raise
            await asyncio.sleep(again)

    async def _pages(self, page: Callable[[str | None], Ask[Page[T]]]) -> AsyncIterator[T]:
        cursor: str | None = None
        while True:
            found = await self.ask(page(cursor))
            for item in found.items:
                yield item
            cursor = found.cursor
            if cursor is None:
                return

    async def _exchange(self, ask: Ask[Any]) -> wire.Answer:
        sent = wire.request(
            self._target, ask.method, ask.path, ask.query, ask.body, ask.idempotency_key
        )
        try:
            async with asyncio.timeout(ask.timeout_s):
                while True:
                    answer = await self._try(sent)
                    if answer is not None:
                        return answer
        except (OSError, TimeoutError) as error:
            reason = str(error) or "it took too long"
            raise NoAnswer(f"no answer from {self._target.authority}: {reason}") from error

    async def _try(self, sent: bytes) -> wire.Answer | None:
        """One exchange; None when its connection was closed while it lay idle."""
        connection = self._idle.pop() if self._idle else None
        used = connection is not None
        reader, writer = connection or await self._connect()
        answer = wire.AnswerReader()
        try:
            writer.write(sent)
            while answer.answer is None:
                answer.feed(await reader.read(wire.RECEIVE_BYTES))
        except (OSError, NoAnswer):
            writer.close()
            if used and not answer.started:
                return None
            raise
        except BaseException:
            writer.close()
            raise
        if answer.keeps and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append((reader, writer))
        else:
            writer.close()
        return answer.answer

    async def _connect(self) -> _Connection:
        where = self._target
        if where.tls and self._tls is None:
            import ssl

            self._tls = ssl.create_default_context()
        return await asyncio.open_connection(where.host, where.port, ssl=self._tls)


class AsyncInbox:
    """As `Inbox`, awaited."""

    def __init__(self, mailyard: AsyncMailyard, item: Mapping[str, Any]) -> None:
        self._mailyard = mailyard
        self._given = Given()
        self.id: str = item["id"]
        self.address: str = item["address"]
        self.expires_at: datetime | None = item["expires_at"] and moment(item["expires_at"])

    def __repr__(self) -> str:
        return f"<AsyncInbox {self.address}>"

    async def wait_for(
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
            mail = waiting.heard(await self._mailyard.ask(ask))
            if mail is not None:
                return mail
        raise waiting.missed(
            (await self._mailyard.ask(calls.list_mail(self.id, "", "", None))).items
        )

    def mails(self, *, subject: str = "", from_: str = "") -> AsyncIterator[MailSummary]:
        """What lies in it, newest first."""
        return self._mailyard._pages(
            lambda cursor: calls.list_mail(self.id, from_, subject, cursor)
        )

    async def delete(self) -> None:
        """Delete it with its mail."""
        await self._mailyard.ask(calls.delete(f"/v1/inboxes/{self.id}"))
