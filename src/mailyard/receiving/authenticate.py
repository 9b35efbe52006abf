"""Who sent each of these mails: the checks of `protocol.authentication`, with DNS as it is now.

What the resolver remembers is enough for nearly all mail of an hour, and then nothing waits. The
rest is asked for at once and waited for as long as the caller says; a message without a verdict
after that is the caller's to try again. After a wait that ended without answers nobody waits for a
while: so a dead resolver costs ingest one deadline and not one a batch.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import structlog

from mailyard.core.clock import Clock
from mailyard.core.errors import ConfigurationError
from mailyard.core.limits import KIB
from mailyard.net.dns import Resolver
from mailyard.observe.metrics import VERDICTS
from mailyard.protocol.arc import ChainResult, ChainStatus
from mailyard.protocol.authentication import Inquiry, Standing, Verdict, author_alone
from mailyard.protocol.dmarc import DmarcResult, DmarcStatus
from mailyard.protocol.dmarc.check import Organisation
from mailyard.protocol.dns_answer import (
    Address,
    NoName,
    Question,
    Result,
    TemporaryFailure,
    Trouble,
)
from mailyard.protocol.public_suffix import SuffixList
from mailyard.protocol.spf import Sender, SpfResult, SpfStatus

_MESSAGES_BETWEEN_PAUSES = 8
_ASIDE_BYTES = 256 * KIB  # larger mail is hashed in a thread
_AT_ONCE = 200  # messages whose answers are waited for together
_REMEMBERED = 256  # authors
_NO_WAIT_S = 5.0  # after a wait that brought nothing
_NO_NAME = NoName(3600.0, False)
_FLAWED = Verdict(
    SpfResult(SpfStatus.TEMPERROR, "", "the check failed here"),
    "",
    (),
    DmarcResult(DmarcStatus.TEMPERROR, "", reason="the check failed here"),
    ChainResult(ChainStatus.NONE),
    Standing.UNKNOWN,
)
_LOG = structlog.get_logger(__name__)
_NOT_NOW = TemporaryFailure(Trouble.TIMEOUT, "nothing in time")


class Received(NamedTuple):
    """A message as it came in."""

    id: UUID
    peer: str
    helo: str
    reverse_path: str
    raw: bytes


class Authenticator:
    """One event loop's. `unasked` names cost no question. `receiver` is our own name. With
    `loopback` clients of this machine are checked like others; by default SPF says nothing of
    them."""

    def __init__(
        self,
        *,
        dns: Resolver,
        clock: Clock,
        receiver: str,
        unasked: Callable[[str], bool],
        loopback: bool = False,
        organisation: Organisation | None = None,
    ) -> None:
        self._dns = dns
        self._clock = clock
        self._receiver = receiver
        self._unasked = unasked
        self._loopback = loopback
        self._organisation = organisation
        self._patient_at = 0.0
        self._alone: dict[bytes, Verdict] = {}

    async def verdicts(
        self, messages: Sequence[Received], within_s: float, *, last: bool = False
    ) -> dict[UUID, Verdict]:
        """A verdict for each message that could be judged in `within_s`. With `last` for all: what
        DNS has not said by then counts as said to be unknown for now."""
        verdicts: dict[UUID, Verdict] = {}
        open_: list[tuple[UUID, Inquiry]] = []
        for count, message in enumerate(messages, 1):
            try:
                sender = self._sender(message)
                alone = author_alone(message.raw) if sender is None else None
                if alone is not None and alone in self._alone:
                    verdicts[message.id] = self._alone[alone]
                    continue
                inquiry = await self._inquiry(message.raw, sender)
                verdict = self._of_nobody_else(inquiry, alone)
                missing = not verdict and inquiry.step(self._kept)
            except Exception:  # a flaw of ours must not hold up mail
                _LOG.exception("not_judged", message=str(message.id))
                if last:
                    verdicts[message.id] = _FLAWED
                continue
            if verdict is not None:
                verdicts[message.id] = verdict
            elif missing:
                open_.append((message.id, inquiry))
            elif inquiry.verdict is not None:
                verdicts[message.id] = inquiry.verdict
            if count % _MESSAGES_BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)
        if open_:
            await self._finish(open_, within_s, last)
            verdicts |= {
                message_id: inquiry.verdict
                for message_id, inquiry in open_
                if inquiry.verdict is not None
            }
        if not last:
            verdicts = {one: verdict for one, verdict in verdicts.items() if verdict.settled}
        for standing, judged in Counter(one.standing for one in verdicts.values()).items():
            VERDICTS.labels(standing).inc(judged)
        return verdicts

    def _of_nobody_else(self, inquiry: Inquiry, alone: bytes | None) -> Verdict | None:
        """The one verdict on what this machine sends itself under names that nobody is asked for,
        remembered under the From, `alone`."""
        domains = inquiry.author_alone
        if domains is None or not all(map(self._unasked, domains)):
            return None
        inquiry.step(self._kept)
        if inquiry.verdict is not None and alone is not None:
            if len(self._alone) >= _REMEMBERED:
                self._alone.clear()
            self._alone[alone] = inquiry.verdict
        return inquiry.verdict

    async def _inquiry(self, raw: bytes, sender: Sender | None) -> Inquiry:
        now_s = self._clock.now().timestamp()
        if len(raw) <= _ASIDE_BYTES:
            return Inquiry(raw, sender, now_s, self._organisation)
        return await asyncio.to_thread(_prepared, raw, sender, now_s, self._organisation)

    def _sender(self, message: Received) -> Sender | None:
        client = _client(message.peer)
        if client is None or (client.is_loopback and not self._loopback):
            return None
        return Sender(client, message.helo, message.reverse_path, self._receiver)

    def _kept(self, question: Question) -> Result[Any] | None:
        if self._unasked(question.name):
            return _NO_NAME
        return self._dns.kept(question)

    async def _finish(
        self, open_: Sequence[tuple[UUID, Inquiry]], within_s: float, last: bool
    ) -> None:
        """Ask, and go on with what comes in time."""
        now = self._clock.monotonic()
        if not last and now < self._patient_at:
            within_s = 0.0
        gate = asyncio.Semaphore(_AT_ONCE)
        tasks = [asyncio.create_task(self._ask(inquiry, gate)) for _, inquiry in open_]
        try:
            _, late = await asyncio.wait(tasks, timeout=within_s)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if late and within_s > 0:
            self._patient_at = self._clock.monotonic() + _NO_WAIT_S
        if last:
            for _, inquiry in open_:
                while inquiry.verdict is None:
                    inquiry.step(self._kept_or_not_now)

    def _kept_or_not_now(self, question: Question) -> Result[Any]:
        return self._kept(question) or _NOT_NOW

    async def _ask(self, inquiry: Inquiry, gate: asyncio.Semaphore) -> None:
        found: dict[Question, Result[Any]] = {}

        def known(question: Question) -> Result[Any] | None:
            return found.get(question) or self._kept(question)

        async with gate:
            while missing := inquiry.step(known):
                questions = list(missing)
                answers = await asyncio.gather(*map(self._dns.answer, questions))
                found.update(zip(questions, answers, strict=True))


def read_suffixes(file: Path) -> Organisation:
    """The organisational domain by the public suffix list in `file`. Raises ConfigurationError."""
    try:
        suffixes = SuffixList(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"MAILYARD_PUBLIC_SUFFIX_FILE is {str(file)!r}, which cannot be read: {error}"
        ) from error
    if not len(suffixes):
        raise ConfigurationError(f"MAILYARD_PUBLIC_SUFFIX_FILE: {str(file)!r} holds no rules")
    return suffixes.organisation


def _prepared(
    raw: bytes, sender: Sender | None, now_s: float, organisation: Organisation | None
) -> Inquiry:
    inquiry = Inquiry(raw, sender, now_s, organisation)
    inquiry.hash_bodies()
    return inquiry


def _client(peer: str) -> Address | None:
    try:
        client = ip_address(peer)
    except ValueError:
        return None
    return getattr(client, "ipv4_mapped", None) or client
