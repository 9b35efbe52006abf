"""The one HTTP client through which everything that is fetched goes out.

The address is checked when the connection is made, on the address itself, so a name that resolves
to another one a moment later gains nothing. Redirects are answers like others: nothing is followed.
No proxy, no cookie and no credential comes from the environment. TLS is verified. Answers, times
and connections are bounded, and an answer is never unpacked (it was not asked for in a packed
form), so a small one cannot grow.

Who sends mail must know whether a request may have arrived. `Exchange` says so at any instant:
before `written`, nothing of the request has left.
"""

import socket
import ssl
from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from mailyard.core.errors import InvalidInput, Unavailable
from mailyard.core.limits import MIB
from mailyard.net.guard import Network, refusal
from mailyard.net.tls import client_context

# aiohttp is 11 MB in every process: it comes with the first request.
if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

# A number that no system call gives, so that a refused address is known again among the errors of
# a name's other addresses, which aiohttp melts into one when all have the same number.
_REFUSED = 0x6D61696C
_NAMES_KEPT_S = 10


class HttpOptions(Struct, frozen=True):
    """Bounds of a client. Times in seconds, sizes in bytes.

    `connect_s` is until a connection is ours: waiting for a free one, DNS, TCP and TLS.
    `read_s` is between two pieces of an answer, `total_s` for all of a request.
    `idle_s`: shorter than what servers keep (a minute for most), so that a request seldom meets a
    connection that is just being closed, after which nobody knows whether it arrived.
    """

    connections: int = 500
    connections_per_host: int = 100
    connect_s: float = 10.0
    read_s: float = 30.0
    total_s: float = 60.0
    idle_s: float = 10.0
    answer_bytes: int = 1 * MIB


class HttpAnswer(Struct, frozen=True):
    """A whole answer. Names of `headers` are in lower case; of several fields, the first."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """How far a request has got: `written` once its bytes may have left, `status` once the head of
    its answer is there."""

    __slots__ = ("status", "written")

    def __init__(self) -> None:
        self.written = False
        self.status: int | None = None


class HttpFailure(Unavailable):
    """No whole answer came. `written` and `status` are those of the `Exchange`."""

    code = "http_failure"

    def __init__(self, message: str, exchange: Exchange) -> None:
        super().__init__(message)
        self.written = exchange.written
        self.status_seen = exchange.status


class AddressRefused(HttpFailure):
    """The host lies where nothing may be fetched from. Nothing was sent."""

    code = "address_refused"
    retryable = False


class AnswerTooLarge(HttpFailure):
    """The answer is larger than the caller allows. The rest of it was not read."""

    code = "answer_too_large"
    retryable = False


class HttpClient:
    """Fetches. `allowed` are networks that may be reached although they are not public.

    Used on one event loop; what it opens, `close` closes.
    """

    def __init__(
        self,
        *,
        user_agent: str = "Mailyard",
        allowed: tuple[Network, ...] = (),
        options: HttpOptions | None = None,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self.options = options or HttpOptions()
        self._user_agent = user_agent
        self._allowed = allowed
        self._tls_context = tls_context or client_context(verify=True)
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        total_s: float | None = None,
        answer_bytes: int | None = None,
        exchange: Exchange | None = None,
    ) -> HttpAnswer:
        """One request and its whole answer, whatever its status; redirects are not followed.

        Raises InvalidInput (the URL, a header), AddressRefused, AnswerTooLarge, HttpFailure.
        """
        import aiohttp

        exchange = exchange or Exchange()
        target = _target(url)
        session = self._opened()
        most = self.options.answer_bytes if answer_bytes is None else answer_bytes
        try:
            async with session.request(
                method,
                target,
                headers=headers,
                data=body or None,
                allow_redirects=False,
                timeout=self._timeout(total_s),
                trace_request_ctx=exchange,
            ) as response:
                exchange.status = response.status
                content = await _content(response, most, exchange)
                fields: dict[str, str] = {}
                for name, value in response.headers.items():
                    fields.setdefault(name.lower(), value)
                return HttpAnswer(response.status, fields, content)
        except aiohttp.ClientConnectorError as error:
            if error.os_error.errno == _REFUSED:
                raise AddressRefused(
                    f"{target.host}: {error.os_error.strerror}", exchange
                ) from None
            raise HttpFailure(f"cannot connect: {error}", exchange) from error
        except TimeoutError as error:
            stage = "no whole answer" if exchange.written else "no connection"
            raise HttpFailure(f"{stage} from {target.host} in time", exchange) from error
        except aiohttp.InvalidURL as error:
            # A host that is a number in an odd spelling: nobody was asked what it stands for.
            raise AddressRefused(f"{url[:200]!r} names no host: {error}", exchange) from None
        except (aiohttp.ClientError, OSError) as error:
            reason = str(error) or type(error).__name__
            raise HttpFailure(
                f"the exchange with {target.host} broke: {reason}", exchange
            ) from error
        except ValueError as error:
            raise InvalidInput(f"this cannot be requested: {error}", field="headers") from None

    async def close(self) -> None:
        """Close all connections. Requests under way fail."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _timeout(self, total_s: float | None) -> "aiohttp.ClientTimeout":
        import aiohttp

        options = self.options
        return aiohttp.ClientTimeout(
            total=options.total_s if total_s is None else total_s,
            connect=options.connect_s,
            sock_connect=options.connect_s,
            sock_read=options.read_s,
        )

    def _opened(self) -> "aiohttp.ClientSession":
        if self._session is None:
            import aiohttp

            trace = aiohttp.TraceConfig()
            trace.on_request_headers_sent.append(_note_written)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self.options.connections,
                    limit_per_host=self.options.connections_per_host,
                    keepalive_timeout=self.options.idle_s,
                    ttl_dns_cache=_NAMES_KEPT_S,
                    ssl=self._tls_context,
                    socket_factory=self._socket,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
                trace_configs=[trace],
            )
        return self._session

    def _socket(self, address: "aiohttp.AddrInfoType") -> socket.socket:
        """The socket for one address of a host. Raises OSError where none may be."""
        family, kind, protocol, _, where = address
        reason = refusal(str(where[0]), self._allowed)
        if reason is not None:
            raise OSError(
                _REFUSED, f"{where[0]} may not be connected to: {reason}; settings can allow it"
            )
        return socket.socket(family, kind, protocol)


async def _note_written(
    _session: "aiohttp.ClientSession",
    context: SimpleNamespace,
    _params: "aiohttp.TraceRequestHeadersSentParams",
) -> None:
    exchange: Any = context.trace_request_ctx
    exchange.written = True


def check_url(url: str, allowed: tuple[Network, ...] = ()) -> None:
    """Raises InvalidInput for a URL that can never be fetched; what its name stands for is asked
    when the connection is made."""
    host = _target(url).host or ""
    try:
        reason = refusal(host, allowed)
    except ValueError:
        return  # a name
    if reason is not None:
        raise InvalidInput(f"{host} may not be connected to: {reason}", field="url")


def _target(url: str) -> "URL":
    """`url`, if it is one that may be asked for. Raises InvalidInput."""
    from yarl import URL

    try:
        target = URL(url)
        port, host = target.port, target.host  # both may be refused only when they are asked for
    except ValueError as error:
        raise InvalidInput(f"{url[:200]!r} is no URL: {error}", field="url") from None
    if target.scheme not in ("http", "https") or not host or not port:
        raise InvalidInput(f"{url[:200]!r} is no http or https URL", field="url")
    if target.user is not None or target.password is not None:
        raise InvalidInput("a URL with a user or a password is not fetched", field="url")
    return target


async def _content(response: "aiohttp.ClientResponse", most: int, exchange: Exchange) -> bytes:
    """The body, at most `most` bytes of it. Raises AnswerTooLarge."""
    pieces: list[bytes] = []
    size_bytes = response.content_length or 0
    if size_bytes <= most:
        size_bytes = 0
        async for piece in response.content.iter_any():
            size_bytes += len(piece)
            if size_bytes > most:
                break
            pieces.append(piece)
    if size_bytes > most:
        raise AnswerTooLarge(f"the answer is larger than {most} bytes", exchange)
    return b"".join(pieces)
