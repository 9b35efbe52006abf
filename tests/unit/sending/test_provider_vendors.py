"""What is said to each provider, and what is heard in its answers. No network."""

import base64
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from http_script import letter, message_id_of

from mailyard.core import ids
from mailyard.net.http import HttpAnswer
from mailyard.sending.transport import Outcome, Outgoing, Recipient
from mailyard.sending.transports.mailgun import Mailgun
from mailyard.sending.transports.packing import in_words
from mailyard.sending.transports.postmark import Postmark
from mailyard.sending.transports.resend import Resend
from mailyard.sending.transports.sendgrid import SendGrid
from mailyard.sending.transports.ses import Ses
from mailyard.sending.transports.sigv4 import AwsCredentials
from mailyard.sending.transports.vendor import (
    Inexpressible,
    Unreadable,
    Vendor,
    Verdict,
    retry_after_s,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SES = Ses(region="eu-west-1", credentials=AwsCredentials("AKID", "secret"))
SENDGRID = SendGrid(key="SG.key")
POSTMARK = Postmark(token="token")
MAILGUN = Mailgun(domain="mg.s.example", key="key")
RESEND = Resend(key="re_key")
ALL: list[Vendor] = [SES, SENDGRID, POSTMARK, MAILGUN, RESEND]


def mail(*addresses: str, content: bytes | None = None) -> Outgoing:
    addresses = addresses or ("ada@example.com",)
    recipients = tuple(Recipient(ids.uuid7(), address) for address in addresses)
    return Outgoing("b@s.example", recipients, content or letter(*addresses), False, False)


def said(vendor: Vendor, *mails: Outgoing) -> Any:
    """The JSON of one request with all of `mails`."""
    request = vendor.request([in_words(vendor, one) for one in mails], NOW)
    return msgspec.json.decode(request.body)


def reply(status: int, body: object = b"", **headers: str) -> HttpAnswer:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return HttpAnswer(status, {k.replace("_", "-"): v for k, v in headers.items()}, content)


def heard(vendor: Vendor, answer: HttpAnswer, *mails: Outgoing) -> list[list[Verdict]]:
    return vendor.accepted([in_words(vendor, one) for one in mails or (mail(),)], answer)


def short(verdict: Verdict) -> tuple[Outcome, bool]:
    return verdict.outcome, verdict.route_fault


LATER_ROUTE = (Outcome.LATER, True)
NEVER_MAIL = (Outcome.NEVER, False)

MULTIPART = (
    b"From: a@s.example\r\nContent-Type: multipart/%s; boundary=x\r\n\r\n--x\r\n\r\nhi\r\n--x--\r\n"
)
RICH = (
    b"From: =?utf-8?q?Caf=C3=A9?= <shop@s.example>\r\n"
    b"To: Ada <ada@example.com>, bob@example.com\r\n"
    b"Cc: Cy <cy@example.com>\r\nReply-To: help@s.example\r\nSubject: =?utf-8?q?=E2=82=AC5?=\r\n"
    b"Date: Sun, 01 Mar 2026 12:00:00 +0000\r\nMessage-ID: <m1@s.example>\r\n"
    b"DKIM-Signature: v=1; a=rsa-sha256; b=AAAA\r\n"
    b"List-Unsubscribe: <https://s.example/u/1>\r\n"
    b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="m"\r\n\r\n'
    b'--m\r\nContent-Type: multipart/alternative; boundary="a"\r\n\r\n'
    b"--a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nplain\r\n"
    b'--a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<img src="cid:logo">\r\n--a--\r\n'
    b"--m\r\nContent-Type: image/png\r\nContent-ID: <logo>\r\n"
    b"Content-Disposition: inline; filename=logo.png\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    b"iVBORw==\r\n"
    b"--m\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\nJVBERg==\r\n--m--\r\n"
)


# What is said.


def test_ses_gets_the_very_bytes_and_all_recipients() -> None:
    raw = letter("ada@example.com").replace(b"Hi.", b"\xc3\xa9 \x00\xff")
    call = said(SES, mail("ada@example.com", "bob@example.com", content=raw))
    assert base64.b64decode(call["Content"]["Raw"]["Data"]) == raw
    assert call["Destination"]["ToAddresses"] == ["ada@example.com", "bob@example.com"]
    assert "ConfigurationSetName" not in call


def test_ses_names_the_configuration_set_that_publishes_events() -> None:
    vendor = Ses(region="x", credentials=AwsCredentials("a", "b"), configuration_set="events")
    assert said(vendor, mail())["ConfigurationSetName"] == "events"


def test_only_ses_counts_recipients() -> None:
    assert [vendor.counts_recipients for vendor in ALL] == [True, False, False, False, False]


def test_mailgun_gets_the_very_bytes_in_a_form() -> None:
    raw = letter("ada@example.com") + b"\r\n--x\r\n\x00\xff\r\n"
    one = mail("ada@example.com", "bob@example.com", content=raw)
    request = MAILGUN.request([in_words(MAILGUN, one)], NOW)
    assert request.url == "https://api.mailgun.net/v3/mg.s.example/messages.mime"
    boundary = request.headers["Content-Type"].partition("boundary=")[2].encode()
    parts = request.body.split(b"--" + boundary)
    assert sum(b'name="to"' in part for part in parts) == 2
    (file,) = [part for part in parts if b'name="message"' in part]
    assert file.partition(b"\r\n\r\n")[2] == raw + b"\r\n"


def test_sendgrid_is_told_every_field_of_the_mail() -> None:
    one = mail(
        "ada@example.com", "bob@example.com", "cy@example.com", "dee@example.com", content=RICH
    )
    body = said(SENDGRID, one)
    assert body["from"] == {"email": "shop@s.example", "name": "Café"}
    assert body["reply_to"] == {"email": "help@s.example"}
    assert [one["type"] for one in body["content"]] == ["text/plain", "text/html"]
    (person,) = body["personalizations"]
    assert person["to"] == [
        {"email": "ada@example.com", "name": "Ada"},
        {"email": "bob@example.com"},
    ]
    assert person["cc"] == [{"email": "cy@example.com", "name": "Cy"}]
    assert person["bcc"] == [{"email": "dee@example.com"}], "who is in no header stays hidden"
    assert person["subject"] == "€5"
    assert person["headers"] == {
        "List-Unsubscribe": "<https://s.example/u/1>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        "Message-ID": "<m1@s.example>",
    }
    logo, file = body["attachments"]
    assert (logo["disposition"], logo["content_id"], logo["content"]) == (
        "inline",
        "logo",
        "iVBORw==",
    )
    assert (file["disposition"], file["filename"]) == ("attachment", "a.pdf")
    assert file["content"] == "JVBERg=="
    assert not body["tracking_settings"]["click_tracking"]["enable"]


def test_sendgrid_takes_mails_that_differ_only_in_their_reader_as_one_request() -> None:
    one, two = mail("ada@example.com"), mail("bob@example.com")
    items = [in_words(SENDGRID, one), in_words(SENDGRID, two)]
    assert items[0].lot == items[1].lot
    body = said(SENDGRID, one, two)
    assert [person["to"][0]["email"] for person in body["personalizations"]] == [
        "ada@example.com",
        "bob@example.com",
    ]
    tags = {person["custom_args"]["mailyard_delivery"] for person in body["personalizations"]}
    assert tags == {
        ids.type_id(ids.DELIVERY, each.recipients[0].delivery_id) for each in (one, two)
    }


def test_sendgrid_keeps_mails_with_other_words_apart() -> None:
    one = in_words(SENDGRID, mail(content=letter("ada@example.com", text="Dear Ada")))
    two = in_words(SENDGRID, mail(content=letter("ada@example.com", text="Dear Bob")))
    assert one.lot != two.lot


def test_postmark_is_told_every_field_of_the_mail() -> None:
    (message,) = said(POSTMARK, mail("ada@example.com", "cy@example.com", content=RICH))
    assert message["From"] == '"Café" <shop@s.example>'
    assert message["To"] == '"Ada" <ada@example.com>', "who is no recipient now is not sent to"
    assert message["Cc"] == '"Cy" <cy@example.com>'
    assert (message["Subject"], message["TextBody"]) == ("€5", "plain")
    assert message["HtmlBody"].startswith("<img")
    assert {"Name": "X-PM-KeepID", "Value": "true"} in message["Headers"]
    assert {"Name": "List-Unsubscribe", "Value": "<https://s.example/u/1>"} in message["Headers"]
    assert message["Attachments"][0]["ContentID"] == "cid:logo"
    assert (message["TrackOpens"], message["TrackLinks"]) == (False, "None")


def test_resend_takes_a_mail_with_attachments_alone_and_others_together() -> None:
    rich = in_words(RESEND, mail("ada@example.com", content=RICH))
    plain = in_words(RESEND, mail())
    assert (rich.lot, plain.lot is not None) == (None, True)
    assert RESEND.request([rich], NOW).url == "https://api.resend.com/emails"
    assert RESEND.request([plain, plain], NOW).url == "https://api.resend.com/emails/batch"
    email = said(RESEND, mail("ada@example.com", content=RICH))
    assert email["attachments"][0]["content_id"] == "logo"


def test_resends_key_is_that_of_the_deliveries_whatever_their_order() -> None:
    one, two = in_words(RESEND, mail()), in_words(RESEND, mail())
    keys = [
        RESEND.request(items, NOW).headers["Idempotency-Key"]
        for items in ([one, two], [two, one], [one])
    ]
    assert keys[0] == keys[1] != keys[2]
    assert len(keys[0]) <= 256


@pytest.mark.parametrize("vendor", ALL)
def test_a_domain_is_said_in_ascii(vendor: Vendor) -> None:
    payload = in_words(vendor, mail("ada@bücher.example")).payload
    assert b"ada@xn--bcher-kva.example" in payload


@pytest.mark.parametrize("vendor", ALL)
def test_a_local_part_that_is_not_ascii_goes_another_way_and_alone(vendor: Vendor) -> None:
    with pytest.raises(Inexpressible) as caught:
        in_words(vendor, mail("ada@example.com", "jörg@example.com"))
    assert caught.value.apart


@pytest.mark.parametrize("vendor", ALL)
def test_an_event_can_bring_our_delivery_id_back(vendor: Vendor) -> None:
    one = mail()
    tag = ids.type_id(ids.DELIVERY, one.recipients[0].delivery_id)
    assert tag.encode() in in_words(vendor, one).payload


@pytest.mark.parametrize("vendor", [SENDGRID, POSTMARK, RESEND])
@pytest.mark.parametrize(
    "content",
    [
        MULTIPART % b"signed",
        MULTIPART % b"encrypted",
        MULTIPART % b"report",
        b"From: a@s.example\r\nContent-Type: application/pkcs7-mime\r\n\r\nAAAA\r\n",
        b"Subject: nobody wrote this\r\n\r\nhi\r\n",
        b"From: a@s.example\r\nContent-Transfer-Encoding: x-secret\r\n\r\nhi\r\n",
        b"From: a@s.example\r\n" + b"X-A: 1\r\n" * 3000 + b"\r\nhi\r\n",
        b"",
    ],
)  # fmt: skip
def test_a_mail_that_would_lose_something_is_not_given_to_an_api_of_fields(
    vendor: Vendor, content: bytes
) -> None:
    with pytest.raises(Inexpressible):
        vendor.item(Outgoing("", (Recipient(ids.uuid7(), "a@x.example"),), content, False, False))


@pytest.mark.parametrize("vendor", [SENDGRID, POSTMARK, RESEND])
def test_people_who_must_not_see_each_other_go_one_by_one(vendor: Vendor) -> None:
    content = letter("undisclosed-recipients:;")
    with pytest.raises(Inexpressible) as caught:
        vendor.item(mail("a@x.example", "b@x.example", content=content))
    assert caught.value.apart
    vendor.item(mail("a@x.example", content=content))


@pytest.mark.parametrize("vendor", [SENDGRID, POSTMARK, RESEND])
def test_a_mail_without_text_and_subject_still_says_something(vendor: Vendor) -> None:
    content = b"From: a@s.example\r\nTo: ada@example.com\r\n\r\n"
    assert b"\\n" in vendor.request([vendor.item(mail(content=content))], NOW).body


# What is heard.


@pytest.mark.parametrize(
    ("vendor", "answer", "message_id"),
    [
        (SES, reply(200, {"MessageId": "0102-x"}), "0102-x"),
        (SENDGRID, reply(202, b"", x_message_id="abc.def"), "abc.def"),
        (MAILGUN, reply(200, {"id": "<1@mg>", "message": "Queued. Thank you."}), "1@mg"),
        (RESEND, reply(200, {"data": [{"id": "49a3"}]}), "49a3"),
        (POSTMARK, reply(200, [{"ErrorCode": 0, "Message": "OK", "MessageID": "b7bc"}]), "b7bc"),
    ],
)
def test_the_providers_id_is_in_the_reply(
    vendor: Vendor, answer: HttpAnswer, message_id: str
) -> None:
    ((verdict,),) = heard(vendor, answer)
    assert verdict.outcome is Outcome.ACCEPTED
    assert message_id_of(verdict.text) == message_id


@pytest.mark.parametrize("vendor", [SES, MAILGUN, RESEND, POSTMARK])
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"MessageId":', b"<html>welcome to the hotel</html>", b"null", b"[]", b"{}",
     b'"x"', b"\xff\xfe", b"[" * 100_000],
)  # fmt: skip
def test_a_yes_that_cannot_be_read_is_unreadable(vendor: Vendor, body: bytes) -> None:
    with pytest.raises(Unreadable):
        heard(vendor, reply(200, body))


@pytest.mark.parametrize("vendor", [RESEND, POSTMARK])
def test_fewer_answers_than_mails_are_unreadable(vendor: Vendor) -> None:
    one = {"id": "1"} if vendor is RESEND else {"ErrorCode": 0, "MessageID": "1"}
    body = {"data": [one]} if vendor is RESEND else [one]
    with pytest.raises(Unreadable):
        heard(vendor, reply(200, body), mail(), mail())


def test_sendgrids_sandbox_sends_nothing() -> None:
    ((verdict,),) = heard(SENDGRID, reply(200))
    assert short(verdict) == LATER_ROUTE


@pytest.mark.parametrize("vendor", ALL)
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, LATER_ROUTE), (401, LATER_ROUTE), (402, LATER_ROUTE), (403, LATER_ROUTE),
        (404, LATER_ROUTE), (408, LATER_ROUTE), (429, LATER_ROUTE), (500, LATER_ROUTE),
        (503, LATER_ROUTE), (502, (Outcome.UNKNOWN, False)), (504, (Outcome.UNKNOWN, False)),
        (400, NEVER_MAIL), (422, NEVER_MAIL), (413, (Outcome.NEVER, True)),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "body", [b"", b"<html>no</html>", b"{", b'{"message":"no"}', b"[" * 100_000]
)
def test_a_status_speaks_for_itself_whatever_body_comes_with_it(
    vendor: Vendor, status: int, expected: tuple[Outcome, bool], body: bytes
) -> None:
    assert short(vendor.refused(reply(status, body), NOW)) == expected


@pytest.mark.parametrize(
    ("kind", "status", "message", "expected"),
    [
        ("AccountSuspendedException", 400, "suspended", LATER_ROUTE),
        ("SendingPausedException", 400, "paused", LATER_ROUTE),
        ("LimitExceededException", 400, "limit", LATER_ROUTE),
        ("MailFromDomainNotVerifiedException", 400, "x", LATER_ROUTE),
        ("MessageRejected", 400, "Email address is not verified. The following …", LATER_ROUTE),
        ("MessageRejected", 400, "it has a virus", NEVER_MAIL),
        ("BadRequestException", 400, "Missing final '@domain'", NEVER_MAIL),
        ("TooManyRequestsException", 429, "Maximum sending rate exceeded.", LATER_ROUTE),
        ("InvalidSignatureException:http://internal/", 403, "x", LATER_ROUTE),
        ("UnrecognizedClientException", 403, "x", LATER_ROUTE),
    ],
)  # fmt: skip
def test_ses_says_in_its_error_whose_fault_it_is(
    kind: str, status: int, message: str, expected: tuple[Outcome, bool]
) -> None:
    by_header = SES.refused(reply(status, {"message": message}, x_amzn_errortype=kind), NOW)
    assert short(by_header) == expected
    by_body = SES.refused(reply(status, {"__type": f"aws#{kind}", "message": message}), NOW)
    assert short(by_body) == expected
    assert message in by_header.text


def test_sendgrid_names_the_field_that_it_refuses() -> None:
    field = "personalizations.0.to.0.email"
    body = {"errors": [{"message": "Not a valid address.", "field": field, "help": None}]}
    verdict = SENDGRID.refused(reply(400, body), NOW)
    assert short(verdict) == NEVER_MAIL
    assert verdict.text == f"400 Not a valid address. ({field})"


def test_sendgrid_says_retry_after_in_its_own_way() -> None:
    answer = reply(429, b"", x_ratelimit_reset=str(int(NOW.timestamp()) + 7))
    assert SENDGRID.refused(answer, NOW).wait_s == 7.0


@pytest.mark.parametrize("reset", ["", "soon", "-1", "9" * 40])
def test_a_reset_that_is_no_time_is_none(reset: str) -> None:
    assert SENDGRID.refused(reply(429, b"", x_ratelimit_reset=reset), NOW).wait_s is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (10, LATER_ROUTE), (100, LATER_ROUTE), (300, NEVER_MAIL), (400, LATER_ROUTE),
        (401, LATER_ROUTE), (405, LATER_ROUTE), (406, NEVER_MAIL), (411, NEVER_MAIL),
        (412, LATER_ROUTE), (413, LATER_ROUTE), (429, LATER_ROUTE), (1235, LATER_ROUTE),
    ],
)  # fmt: skip
def test_a_postmark_code_counts_though_the_status_is_200(
    code: int, expected: tuple[Outcome, bool]
) -> None:
    results = [
        {"ErrorCode": 0, "Message": "OK", "MessageID": "1"},
        {"ErrorCode": code, "Message": "words"},
    ]
    first, second = heard(POSTMARK, reply(200, results), mail(), mail())
    assert first[0].outcome is Outcome.ACCEPTED
    assert short(second[0]) == expected
    assert short(POSTMARK.refused(reply(422, results[1]), NOW)) == expected


def test_postmark_names_those_of_a_mail_whom_it_will_not_send_to() -> None:
    one = mail("ada@example.com", "bob@example.com")
    note = "Message OK, but will not deliver to these inactive addresses: Bob@example.com."
    results = [{"ErrorCode": 0, "Message": note, "MessageID": "1"}]
    (verdicts,) = heard(POSTMARK, reply(200, results), one)
    assert [verdict.outcome for verdict in verdicts] == [Outcome.ACCEPTED, Outcome.NEVER]


def test_postmark_refuses_a_mail_because_of_some_and_the_others_are_tried_again() -> None:
    one = mail("ada@example.com", "bob@example.com")
    note = (
        "You tried to send to recipient(s) that have been marked as inactive. Found inactive "
        "addresses: bob@example.com. Inactive recipients are ones that have bounced."
    )
    (verdicts,) = heard(POSTMARK, reply(200, [{"ErrorCode": 406, "Message": note}]), one)
    assert [verdict.outcome for verdict in verdicts] == [Outcome.LATER, Outcome.NEVER]


def test_mailgun_says_no_to_a_domain_in_prose() -> None:
    text = "Domain mg.s.example is not allowed to send: The domain is unverified"
    assert short(MAILGUN.refused(reply(400, {"message": text}), NOW)) == LATER_ROUTE
    assert short(MAILGUN.refused(reply(401, b"Forbidden"), NOW)) == LATER_ROUTE


@pytest.mark.parametrize("name", ["invalid_idempotent_request", "concurrent_idempotent_requests"])
def test_a_key_that_resend_has_seen_leaves_it_unknown_what_became_of_the_first(name: str) -> None:
    verdict = RESEND.refused(reply(409, {"name": name, "message": "x"}), NOW)
    assert short(verdict) == (Outcome.UNKNOWN, False)


def test_a_quota_that_is_used_up_is_not_asked_again_at_once() -> None:
    answer = reply(429, {"name": "daily_quota_exceeded", "message": "x"}, retry_after="1")
    assert (RESEND.refused(answer, NOW).wait_s or 0) > 60


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0), ("0", 0.0), (" 7 ", 7.0), ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0), ("Fri, 31 Dec 9999 23:59:59 GMT", 251629934399.0),
        ("9" * 400, 999999999999999999.0), ("", None), ("soon", None), ("-5", None), ("1.5", None),
        ("²", None),
    ],
)  # fmt: skip
def test_retry_after_in_every_form(value: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": value}, NOW) == seconds
