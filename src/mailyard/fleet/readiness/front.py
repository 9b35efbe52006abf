"""How the installation looks from outside: files that a CDN may keep, HTTPS."""

import asyncio
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from mailyard.core.errors import MailyardError
from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, met, missing, thin
from mailyard.net.http import HttpAnswer, HttpClient

RENEW_WITHIN = timedelta(days=14)
_PAGE = "/sign-in"
_ASSET = re.compile(rb'["\'](/static/[^"\']*\.[0-9a-f]{12}\.(?:css|js))["\']')
_MAX_AGE = re.compile(r"max-age=(\d+)")
_YEAR_S = 31_536_000
_PACKED = frozenset({"gzip", "br", "zstd"})
_WORTH_BYTES = 4_096  # smaller answers gain little by compression
_ASK_S = 10.0


@dataclass(frozen=True, slots=True)
class FrontSeen:
    """A page and one of its files as they come; None: there was none. `why` not, if nothing."""

    url: str
    page: HttpAnswer | None
    asset: HttpAnswer | None = None
    why: str = ""


async def see_front(url: str, http: HttpClient) -> FrontSeen:
    """Fetch a page and a file that it names, as a browser does. Raises nothing."""
    try:
        page = await http.request("GET", url + _PAGE, total_s=_ASK_S)
        named = _ASSET.search(page.body)
        if named is None:
            return FrontSeen(url, page)
        asset = await http.request(
            "GET",
            url + named[1].decode(),
            headers={"Accept-Encoding": "gzip, br"},
            total_s=_ASK_S,
        )
    except MailyardError as error:
        return FrontSeen(url, None, why=error.message)
    return FrontSeen(url, page, asset)


def judge_cdn(seen: FrontSeen) -> Item:
    """What never changes may be kept for ever, what is private never."""
    if seen.page is None:
        fix = "start it, or let MAILYARD_BASE_URL name where people reach it"
        return missing(needs.CDN, f"{seen.url} does not answer: {seen.why}", fix)
    if seen.page.status != 200:
        fix = "let pages through to the API"
        return missing(needs.CDN, f"{seen.url}{_PAGE} answers {seen.page.status}", fix)
    private = seen.page.headers.get("cache-control", "")
    if "no-store" not in private and "private" not in private:
        found = f"pages come with cache-control {private or '(none)'!r}: a CDN would keep them"
        return missing(
            needs.CDN, found, "leave Cache-Control to Mailyard in whatever stands before"
        )
    if seen.asset is None:
        found = "the pages name no file by its content"
        return missing(needs.CDN, found, "install from the wheel, or make install")
    return _judge_asset(seen.asset)


def _judge_asset(asset: HttpAnswer) -> Item:
    kept = asset.headers.get("cache-control", "")
    age = _MAX_AGE.search(kept)
    if asset.status != 200 or "immutable" not in kept or age is None or int(age[1]) < _YEAR_S:
        found = f"a file by its content answers {asset.status}, cache-control {kept or '(none)'!r}"
        fix = "leave /static/ and its Cache-Control to Mailyard in whatever stands before it"
        return missing(needs.CDN, found, fix)
    if "set-cookie" in asset.headers:
        fix = "let nothing add cookies below /static/: CDNs do not keep such answers"
        return thin(needs.CDN, "files come with a cookie", fix)
    packed = asset.headers.get("content-encoding", "")
    if packed not in _PACKED and len(asset.body) > _WORTH_BYTES:
        fix = "pass Accept-Encoding on to Mailyard, or let the CDN compress"
        return thin(needs.CDN, "files are not compressed on their way", fix)
    return met(needs.CDN, f"files: {kept}; pages: kept by nobody")


@dataclass(frozen=True, slots=True)
class TlsSeen:
    """A server's certificate. `until` is None when none was taken: `why`."""

    until: datetime | None
    why: str = ""


async def see_https(url: str, context: ssl.SSLContext) -> TlsSeen:
    """Until when the certificate of `url` holds, verified by `context`. Raises nothing."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_ASK_S):
            _, writer = await asyncio.open_connection(
                parts.hostname, parts.port or 443, ssl=context, server_hostname=parts.hostname
            )
    except ssl.SSLCertVerificationError as error:
        return TlsSeen(None, error.verify_message)
    except (OSError, TimeoutError) as error:
        return TlsSeen(None, str(error) or "no answer in time")
    shown = writer.get_extra_info("ssl_object").getpeercert()
    writer.close()
    return TlsSeen(datetime.fromtimestamp(ssl.cert_time_to_seconds(shown["notAfter"]), UTC))


def judge_https(url: str, seen: TlsSeen | None, now: datetime) -> Item:
    """`seen` is None where the address is no HTTPS at all."""
    if seen is None:
        fix = "MAILYARD_BASE_URL=https://…, with TLS ended by the balancer (deploy/nginx)"
        return missing(needs.HTTPS, f"{url} is not encrypted: cookies and keys travel openly", fix)
    if seen.until is None:
        fix = "a certificate of an authority that clients know, for that name, with its whole chain"
        return missing(needs.HTTPS, f"{url}: {seen.why}", fix)
    return renewal(needs.HTTPS, f"{url}, verified", seen.until, now)


def renewal(check: str, found: str, until: datetime, now: datetime) -> Item:
    """A certificate that is taken, by when it ends."""
    if until <= now:
        return missing(check, f"{found}, but it ended on {until:%Y-%m-%d}", "renew it")
    told = f"{found}, until {until:%Y-%m-%d}"
    if until - now < RENEW_WITHIN:
        return thin(check, told, "renew it; whatever renews it by itself has not")
    return met(check, told)
