"""`POST /v1/emails` at a pace, from many clients that open new connections now and then."""

import asyncio
import json
from dataclasses import dataclass, field
from time import perf_counter
from urllib.parse import urlsplit

from mailyard.proving.experiments.ledger import Ledger
from mailyard.proving.experiments.pace import Pace
from mailyard.proving.own_platform import Address

CLIENTS = 250
_REQUESTS_A_CONNECTION = 12  # then a new one, which the kernel gives to any of the processes
_IDLE_S = 5.0  # a connection that has been idle for longer may be about to be closed
_ANSWER_S = 60.0


@dataclass(slots=True)
class Counts:
    """So far; `waits_s` of the answers since it was last emptied, from when each was due."""

    answered: int = 0
    accepted: int = 0
    broken: int = 0
    waits_s: list[float] = field(default_factory=list)


class HttpLoad:
    """Sends the numbers of `pace` as mails to the ledger's inboxes; who is not answered is not
    asked again, so that every promise is a 202."""

    def __init__(self, address: Address, ledger: Ledger, *, clients: int = CLIENTS) -> None:
        parts = urlsplit(address.url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._key = address.api_key
        self._ledger = ledger
        self._clients = clients
        self.counts = Counts()
        self._due: set[float] = set()  # of those that have no answer
        self._given_up = False

    def slowest(self) -> float:
        """The longest time from when a request was due to its answer, since this was last asked;
        of those that have none, until now."""
        waits, self.counts.waits_s = self.counts.waits_s, []
        oldest = perf_counter() - min(self._due) if self._due else 0.0
        return max([oldest, *waits])

    def give_up(self) -> None:
        """Begin no more, however many are due."""
        self._given_up = True

    async def run(self, pace: Pace) -> None:
        """Until the pace is over and everything that was due is answered."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._clients):
                tasks.create_task(self._client(pace, number))

    async def _client(self, pace: Pace, first: int) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        used = 0.0
        left = 1 + first % _REQUESTS_A_CONNECTION
        while (taken := await pace.take()) is not None:
            if self._given_up:
                break
            number, due = taken
            self._due.add(due)
            try:
                async with asyncio.timeout(_ANSWER_S):
                    if connection is None or left == 0 or due - used > _IDLE_S:
                        if connection is not None:
                            connection[1].close()
                        connection = await asyncio.open_connection(self._host, self._port)
                        left = _REQUESTS_A_CONNECTION
                    left -= 1
                    connection[1].write(self._request(number))
                    status = await _status(connection[0])
                    used = perf_counter()
            except (OSError, EOFError, TimeoutError, ValueError):
                self._ledger.doubtful.add(number)
                self.counts.broken += 1
                if connection is not None:
                    connection[1].close()
                connection = None
                self._due.discard(due)
                continue
            self._due.discard(due)
            self.counts.answered += 1
            self.counts.waits_s.append(perf_counter() - due)
            if status == 202:
                self.counts.accepted += 1
                self._ledger.promised.add(number)
            else:
                self._ledger.refused += 1
        if connection is not None:
            connection[1].close()

    def _request(self, number: int) -> bytes:
        body = json.dumps(
            {
                "from": "Shop <orders@shop.example>",
                "to": [self._ledger.address(number)],
                "subject": self._ledger.subject(number),
                "text": "Thank you for your order.\n" * 20,
                "html": "<p>Thank you for your order.</p>" * 20,
            }
        ).encode()
        head = (
            f"POST /v1/emails HTTP/1.1\r\nhost: {self._host}\r\n"
            f"authorization: Bearer {self._key}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


async def _status(reader: asyncio.StreamReader) -> int:
    """Of one whole answer, whose body has a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(one[15:]) for one in lines if one.startswith(b"content-length:")), 0)
    if length:
        await reader.readexactly(length)
    return int(lines[0].split(b" ", 2)[1])
