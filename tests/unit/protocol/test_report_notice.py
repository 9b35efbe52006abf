"""Bounces in a server's own words: who did not get the mail, and what was said of him."""

import pytest

from mailyard.protocol.report import Kind, Report, Stage, read_report

RETURNED = (
    "Received: from a by b; Mon, 1 Jan 2024 00:00:00 +0000\n"
    "Message-ID: <1@shop.example>\nFrom: shop@shop.example\nTo: someone@example.org\n"
    "Subject: Your order\n\nThank you!\n"
)


def notice(text: str, *headers: str) -> bytes:
    head = headers or ("From: MAILER-DAEMON@mx.example.net", "Subject: failure notice")
    return "\n".join((*head, "To: bounce-1@shop.example", "", text)).encode()


def addresses(report: Report) -> list[str]:
    return [one.address for one in report.recipients]


QMAIL = (
    "Hi. This is the qmail-send program at mx.example.net.\n"
    "I'm afraid I wasn't able to deliver your message to the following addresses.\n\n"
    "<ada@example.org>:\n192.0.2.1 does not like recipient.\n"
    "Remote host said: 550 5.1.1 <ada@example.org>... User unknown\nGiving up on 192.0.2.1.\n\n"
    "<bob@example.org>:\nSorry, no mailbox here by that name. (#5.1.1)\n\n"
    "--- Below this line is a copy of the message.\n\n" + RETURNED
)


def test_qmail_names_each_recipient_before_what_befell_him() -> None:
    report = read_report(notice(QMAIL))
    assert report.kind is Kind.BOUNCE
    assert addresses(report) == ["ada@example.org", "bob@example.org"]
    ada, bob = report.recipients
    assert (ada.status, ada.reply_code, ada.stage) == ("5.1.1", "550", Stage.RCPT)
    assert "no mailbox here" in bob.notice
    assert report.returned.message_id == "1@shop.example"
    assert report.returned.sender == "shop@shop.example"


@pytest.mark.parametrize(
    "text",
    [
        "could not be delivered:\n\n  ada@example.org\n    550 no such user\n",
        "could not be delivered:\n\n <ada@example.org>: 550 no such user\n",
        "Delivery failed.\nRecipient: <ada@example.org>\nReason: 550 no such user\n",
        "Delivery failed.\n\tRecipient: [SMTP:ada@example.org]\n\tReason: 550 no such user\n",
        "Delivery failed to these recipients:\n\t* [ada@example.org]: 550 no such user\n",
        "There was an error delivering your mail to <ada@example.org>.\n550 no such user\n",
        "did not reach the following recipient(s):\n\n"
        "c=US;a= ;p=Org;dda:SMTP=ada@example.org; on Fri, 4 Oct 2002\n    550 no such user\n",
        "Transcript of session follows\n>>> RCPT TO:<ada@example.org>\n<<< 550 no such user\n"
        "could not be delivered\n",
        "Your message to ada@example.org was undeliverable: 550 no such user\n",
        "Die Nachricht konnte nicht zugestellt werden:\n\nada@example.org\n550 no such user\n",
        "К сожалению, не удалось доставить:\n<ada@example.org>: 550 no such user\n",
        "下記のメールは送信できませんでした。\nada@example.org\n550 no such user\n",
    ],
)
def test_a_recipient_is_found_however_the_line_names_him(text: str) -> None:
    report = read_report(notice(f"{text}\n----- Original message -----\n\n{RETURNED}"))
    assert report.kind is Kind.BOUNCE
    assert addresses(report) == ["ada@example.org"]
    assert report.recipients[0].reply_code == "550"


def test_the_sender_and_the_postmaster_are_not_meant() -> None:
    text = (
        "A message sent by <shop@shop.example> could not be delivered.\n"
        "  ada@example.org\n    550 no such user\n"
        "For help, contact postmaster@mx.example.net or write to help@mx.example.net\n"
    )
    assert addresses(read_report(notice(text))) == ["ada@example.org"]


def test_who_wrote_to_himself_is_found() -> None:
    text = "Could not be delivered:\n\n<bounce-1@shop.example>:\n552 disk quota exceeded\n"
    assert addresses(read_report(notice(text))) == ["bounce-1@shop.example"]


def test_addresses_of_the_returned_mail_are_not_failed_ones() -> None:
    text = f"<ada@example.org>: 550 no such user, not delivered\n\n{RETURNED}Ask: eve@example.org\n"
    assert addresses(read_report(notice(text))) == ["ada@example.org"]


def test_a_notice_that_names_nobody_means_whom_the_returned_mail_was_for() -> None:
    report = read_report(notice(f"Your mail could not be delivered.\n\n{RETURNED}"))
    assert addresses(report) == ["someone@example.org"]


def test_names_without_a_domain_are_at_the_reporting_one() -> None:
    report = read_report(
        notice(
            "Your mail to the following recipients could not be delivered:\n\tada\n\tbob\n",
            "From: MAILER-DAEMON@example.org",
            "Subject: Mail Delivery Problem",
        )
    )
    assert addresses(report) == ["ada@example.org", "bob@example.org"]


def test_exim_lists_its_recipients_in_a_header() -> None:
    report = read_report(
        notice(
            "  ada@example.org\n    (generated from info@example.org)\n    mailbox is full\n",
            "From: Mail Delivery System <Mailer-Daemon@mx.example.net>",
            "X-Failed-Recipients: ada@example.org, bob@example.org",
        )
    )
    assert addresses(report) == ["ada@example.org", "bob@example.org"]
    assert report.recipients[0].original_recipient == "info@example.org"


def test_fields_of_a_status_in_the_text_are_read() -> None:
    text = "It failed.\n\nFinal-Recipient: rfc822; ada@example.org\nAction: failed\nStatus: 5.1.1\n"
    report = read_report(notice(text))
    assert addresses(report) == ["ada@example.org"]
    assert report.recipients[0].status == "5.1.1"


def test_html_is_read_when_there_is_no_text() -> None:
    raw = (
        b"From: postmaster@example.net\nSubject: Undeliverable\nContent-Type: text/html\n\n"
        b"<style>p{color:red}</style><p>Could not be delivered to:</p>"
        b"<p>&lt;ada@example.org&gt;</p><p>550 5.1.1 unknown user</p>"
    )
    report = read_report(raw)
    assert addresses(report) == ["ada@example.org"]
    assert report.recipients[0].status == "5.1.1"


def test_a_warning_is_no_bounce() -> None:
    text = (
        "THIS IS A WARNING MESSAGE ONLY. YOU DO NOT NEED TO RESEND YOUR MESSAGE.\n"
        "Delivery to the following recipient has been delayed:\n\n  ada@example.org\n"
    )
    report = read_report(notice(text))
    assert report.kind is Kind.DELAY
    assert report.recipients[0].action == "delayed"


@pytest.mark.parametrize(
    ("transcript", "stage"),
    [
        (">>> MAIL From:<a@b.example>\n<<< 550 no\n", Stage.MAIL),
        (">>> RCPT To:<ada@example.org>\n<<< 550 no\n", Stage.RCPT),
        (">>> DATA\n<<< 550 no\n>>> QUIT\n", Stage.DATA),
        ("host mx.example.org said: 550 no (in reply to end of DATA command)\n", Stage.DATA),
        ("SMTP error from remote mail server after RCPT TO: 550 no\n", Stage.RCPT),
        ("host mx.example.org refused to talk to me: 550 no\n", Stage.CONNECT),
        ("550 no\n", Stage.UNKNOWN),
    ],
)
def test_the_step_of_the_refusal_is_read(transcript: str, stage: Stage) -> None:
    text = f"could not be delivered\n\n<ada@example.org>\n\n{transcript}"
    assert read_report(notice(text)).recipients[0].stage is stage


@pytest.mark.parametrize(
    "raw",
    [
        b"From: ada@example.org\nSubject: Order\n\nMy order did not arrive.\n",
        b"From: ada@example.org\nSubject: Fwd: mail\n\nUser unknown? bob@example.org said: 550\n",
        b"From: news@example.org\nSubject: Returned goods\n\nCould not be sent.\n",
        b"",
        b"\n\n\n",
        b"Subject: =?utf-8?q?",
    ],
)
def test_a_person_may_write_of_failures(raw: bytes) -> None:
    assert read_report(raw).kind is Kind.NONE


def test_a_forwarded_bounce_is_read_and_one_in_a_talk_is_not() -> None:
    quoted = "> Final-Recipient: rfc822; ada@example.org\n> Action: failed\n> Status: 5.1.1\n"
    forwarded = f"From: bob@example.org\nSubject: Fwd: Returned mail\n\nSee:\n{quoted}".encode()
    assert addresses(read_report(forwarded)) == ["ada@example.org"]
    talk = f"From: bob@example.org\nSubject: How to read this?\n\nSee:\n{quoted}".encode()
    assert read_report(talk).kind is Kind.NONE


def test_a_shop_writes_of_failed_deliveries_too() -> None:
    raw = (
        b"From: parcels@example.org\nSubject: Delivery problem\nMessage-ID: <1@example.org>\n\n"
        b"Your parcel could not be delivered to ada@example.org. Track it online.\n"
    )
    assert read_report(raw).kind is Kind.NONE
