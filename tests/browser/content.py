"""A workspace with something on every page, made through the API and by mail."""

import gzip
import json
import smtplib
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

from browser.conftest import Visitor
from playwright.async_api import Page, expect

DOMAIN = "shop.example"
_DAY_S = 86_400


@dataclass
class Content:
    """What was made, as far as a page needs its id."""

    inbox: dict[str, Any]
    receiving_domain: str


class _Api:
    """The API as the visitor's session."""

    def __init__(self, page: Page, csrf: str) -> None:
        self._page = page
        self._headers = {"x-csrf-token": csrf}

    async def send(self, method: str, path: str, body: Any) -> Any:
        answer = await self._page.request.fetch(
            path, method=method, data=body, headers=self._headers
        )
        assert answer.ok, (path, await answer.text())
        return await answer.json() if await answer.body() else None

    async def make(self, path: str, **body: Any) -> Any:
        return await self.send("POST", path, body)


async def fill(visitor: Visitor, page: Page) -> Content:
    """Make it all, and wait until the mail is there."""
    csrf = await page.locator("form input[name=csrf]").first.get_attribute("value")
    assert csrf is not None
    api = _Api(page, csrf)
    inbox = await _received(visitor, api, page)
    domain = await _routed(api)
    await _audience(api)
    await _sent(api)
    await _told(api)
    return Content(inbox, domain)


async def _received(visitor: Visitor, api: _Api, page: Page) -> dict[str, Any]:
    inbox: dict[str, Any] = await api.make(
        "/v1/inboxes", address="orders", name="Orders of the shop", labels=["shop", "urgent"],
        message_ttl_s=30 * _DAY_S, messages_max=5_000, bytes_max=50 << 20,
    )  # fmt: skip
    await api.make("/v1/inboxes", address="once", one_time=True, ttl_s=_DAY_S)
    held = ["support@inbox.localhost", "a-name-of-some-length.for.the.table@inbox.localhost"]
    await api.make("/v1/reserved-addresses", addresses=held)
    await api.send("PUT", f"/v1/inboxes/{inbox['id']}/sender-policy", {"on_forged": "tag"})
    policy = {
        "allowed": ["192.0.2.0/24", "partner.example"], "blocked": ["bad.example"],
        "source_per_minute": 600, "spam_tag_at": 5.0,
    }  # fmt: skip
    await api.send("PUT", "/v1/mail-policy", policy)
    with smtplib.SMTP("127.0.0.1", visitor.platform.smtp_port) as smtp:
        for mail in _mails(inbox["address"]):
            smtp.send_message(mail)
    await page.goto(f"/inboxes/{inbox['id']}")
    for subject in ("Your order 4711", "Report Domain: shop.example", "TLS report"):
        await expect(page.get_by_role("link", name=subject).first).to_be_visible(timeout=20_000)
    return inbox


def _mails(to: str) -> list[EmailMessage]:
    order = EmailMessage()
    order["From"], order["To"] = "Ada Lovelace <ada@customer.example>", to
    order["Subject"], order["Message-ID"] = "Your order 4711", "<order@customer.example>"
    order.set_content("The code is 482913. Where is parcel 4711?\n")
    order.add_alternative("<h1>Order</h1><p>The code is <b>482913</b>.</p>", subtype="html")
    answer = EmailMessage()
    answer["From"], answer["To"] = "Grace <grace@customer.example>", to
    answer["Subject"], answer["In-Reply-To"] = "Re: Your order 4711", "<order@customer.example>"
    answer.set_content("It came.\n")
    return [order, answer, _dmarc(to), _tls(to)]


def _dmarc(to: str) -> EmailMessage:
    """An aggregate report (RFC 7489 appendix C) on the days before."""
    midnight = int(time.time()) // _DAY_S * _DAY_S
    rows = "".join(
        f"<record><row><source_ip>{source}</source_ip><count>{count}</count><policy_evaluated>"
        f"<disposition>none</disposition><dkim>{result}</dkim><spf>{result}</spf>"
        f"</policy_evaluated></row><identifiers><header_from>{DOMAIN}</header_from></identifiers>"
        "</record>"
        for source, count, result in (
            ("192.0.2.10", 1_240, "pass"),
            ("2001:db8::42", 310, "pass"),
            ("198.51.100.7", 35, "fail"),
        )
    )
    mail = EmailMessage()
    mail["From"], mail["To"] = "dmarc@receiver.example", to
    mail["Subject"] = f"Report Domain: {DOMAIN} Submitter: receiver.example"
    mail.set_content("see the files")
    for days in range(1, 6):
        begin = midnight - days * _DAY_S
        text = (
            "<?xml version='1.0'?><feedback><report_metadata><org_name>Receiver</org_name>"
            f"<email>dmarc@receiver.example</email><report_id>r{days}</report_id><date_range>"
            f"<begin>{begin}</begin><end>{begin + _DAY_S - 1}</end></date_range></report_metadata>"
            f"<policy_published><domain>{DOMAIN}</domain><p>reject</p></policy_published>{rows}"
            "</feedback>"
        )
        mail.add_attachment(
            gzip.compress(text.encode()), maintype="application", subtype="gzip",
            filename=f"receiver.example!{DOMAIN}!{begin}!{begin + _DAY_S - 1}.xml.gz",
        )  # fmt: skip
    return mail


def _tls(to: str) -> EmailMessage:
    """A TLS report (RFC 8460 section 4.4)."""
    begin = datetime.now(UTC) - timedelta(days=1)
    failed = {
        "result-type": "certificate-expired",
        "receiving-mx-hostname": f"mx.{DOMAIN}",
        "failed-session-count": 3,
    }
    policy = {
        "policy": {"policy-type": "sts", "policy-domain": DOMAIN},
        "summary": {"total-successful-session-count": 5_326, "total-failure-session-count": 3},
        "failure-details": [failed],
    }
    span = {
        "start-datetime": f"{begin:%Y-%m-%d}T00:00:00Z",
        "end-datetime": f"{begin:%Y-%m-%d}T23:59:59Z",
    }
    report = {
        "organization-name": "Receiver", "date-range": span, "report-id": "t1",
        "contact-info": "tls@receiver.example", "policies": [policy],
    }  # fmt: skip
    mail = EmailMessage()
    mail["From"], mail["To"] = "tls@receiver.example", to
    mail["Subject"] = "TLS report"
    mail.set_content("see the file")
    mail.add_attachment(
        gzip.compress(json.dumps(report).encode()), maintype="application",
        subtype="tlsrpt+gzip", filename=f"receiver.example!{DOMAIN}!1!2.json.gz",
    )  # fmt: skip
    return mail


async def _routed(api: _Api) -> str:
    domain = (await api.make("/v1/receiving-domains", name=f"in.{DOMAIN}"))["id"]
    for route in (
        {"pattern": "sales", "action": "inbox", "inbox": "orders@inbox.localhost"},
        {"pattern": "old-*", "action": "drop"},
        {"pattern": "secret", "action": "refuse"},
    ):
        await api.make(f"/v1/receiving-domains/{domain}/routes", **route)
    return str(domain)


async def _audience(api: _Api) -> None:
    await api.make("/v1/contacts", address="ada@customer.example", name="Ada Lovelace")
    await api.make("/v1/segments", name="Who opened lately", filter="opened")
    await api.make("/v1/topics", name="News", description="What is new, once a month")
    await api.make("/v1/suppressions", address="gone@customer.example", evidence="asked by mail")


async def _sent(api: _Api) -> None:
    await api.make("/v1/templates", name="receipt", subject="Receipt {{ number }}", text="Thanks")
    await api.make("/v1/domains", name=DOMAIN)
    await api.make("/v1/tracking-domains", name=f"links.{DOMAIN}")
    settings = {"host": "127.0.0.1", "port": 9}
    await api.make("/v1/providers", name="second", kind="smtp", settings=settings)
    await api.make(
        "/v1/provider-hooks", kind="mailgun", name="Mailgun", secret="a signing key of mailgun"
    )


async def _told(api: _Api) -> None:
    await api.make(
        "/v1/webhooks", name="The shop", url="https://app.shop.example/hooks/mail",
        kinds=["message.received"],
    )  # fmt: skip
    settings = {"model": "m", "base_url": "https://127.0.0.1:9"}
    await api.make("/v1/analysis/models", name="model", kind="openai", settings=settings)
    await api.make("/v1/keys", name="the shop's", scopes=["inboxes:read", "emails:send"])
    await api.make("/v1/invitations", email="grace@shop.example", role="viewer")
