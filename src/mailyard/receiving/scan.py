"""Who scores a message before its 250: our own rules, or rspamd over HTTP.

rspamd's `/checkv2` (rspamd.com/doc/architecture/protocol.html) takes the message as the body and
the envelope as headers. Where it does not answer in time our own rules do.
"""

import asyncio
from collections.abc import Sequence

import msgspec
import structlog

from mailyard.core.errors import MailyardError, Unavailable
from mailyard.core.limits import KIB
from mailyard.net.http import HttpClient
from mailyard.protocol.smtp.envelope import Peer
from mailyard.protocol.spam.score import SpamScore, score

_LOG = structlog.get_logger(__name__)
_ASIDE_BYTES = 64 * KIB  # larger mail is scored in a thread
_WITHIN_S = 4.0
REJECTED_POINTS = 15.0  # where rspamd rejects, as it is shipped


class RulesScanner:
    """Scores by our own rules."""

    async def scan(
        self,
        peer: Peer,  # noqa: ARG002 - the port's
        reverse_path: str,  # noqa: ARG002
        recipients: Sequence[str],  # noqa: ARG002
        content: bytes,
    ) -> SpamScore:
        """By what the message says alone."""
        if len(content) <= _ASIDE_BYTES:
            return score(content)
        return await asyncio.to_thread(score, content)


class _Symbol(msgspec.Struct):
    score: float = 0.0


class _Answer(msgspec.Struct):
    score: float
    action: str = ""
    symbols: dict[str, _Symbol] = msgspec.field(default_factory=dict)


_ANSWER = msgspec.json.Decoder(_Answer)


class RspamdScanner:
    """Asks rspamd at `url` (http://127.0.0.1:11333); `otherwise` when that does not answer."""

    def __init__(self, *, http: HttpClient, url: str, otherwise: RulesScanner) -> None:
        self._http = http
        self._url = url.rstrip("/") + "/checkv2"
        self._otherwise = otherwise

    async def scan(
        self, peer: Peer, reverse_path: str, recipients: Sequence[str], content: bytes
    ) -> SpamScore:
        """rspamd's score and symbols, or our own."""
        try:
            return await self.ask(peer, reverse_path, recipients, content)
        except MailyardError as error:
            _LOG.warning("rspamd does not answer", error=error.message)
            return await self._otherwise.scan(peer, reverse_path, recipients, content)

    async def ask(
        self, peer: Peer, reverse_path: str, recipients: Sequence[str], content: bytes
    ) -> SpamScore:
        """What rspamd says. Raises MailyardError."""
        headers = {
            "IP": peer.address,
            "Helo": peer.hello,
            "From": f"<{reverse_path}>",
            "Rcpt": recipients[0] if recipients else "",
            "Content-Type": "application/octet-stream",
        }
        answer = await self._http.request(
            "POST", self._url, headers=headers, body=content, total_s=_WITHIN_S
        )
        if answer.status != 200:
            raise Unavailable(f"rspamd answers {answer.status}")
        try:
            found = _ANSWER.decode(answer.body)
        except msgspec.DecodeError as error:
            raise Unavailable(f"rspamd's answer cannot be read: {error}") from None
        fired = [(name, one.score) for name, one in found.symbols.items()]
        fired.sort(key=lambda one: -abs(one[1]))
        points = found.score
        if found.action == "reject":  # whatever its points are: some rules reject by themselves
            points = max(points, REJECTED_POINTS)
        return SpamScore(round(points, 2), tuple(fired))
