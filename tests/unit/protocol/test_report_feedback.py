"""Complaints (RFC 5965), automatic answers (RFC 3834) and challenges."""

import pytest

from mailyard.protocol.report import Kind, read_report

ARF = (
    "From: <abusedesk@example.com>\nSubject: FW: Earn money\nTo: <abuse@example.net>\n"
    'Content-Type: multipart/report; report-type=feedback-report; boundary="b"\n\n'
    "--b\nContent-Type: text/plain\n\nThis is an email abuse report.\n"
    "--b\nContent-Type: message/feedback-report\n\n{fields}\n"
    "--b\nContent-Type: message/rfc822\n\n"
    "Return-Path: <b_1@bounce.example.net>\nMessage-ID: <8787@example.net>\n"
    "To: <user@example.com>\nSubject: Earn money\n\nSpam\n--b--\n"
)


def arf(fields: str) -> bytes:
    return ARF.format(fields=fields).encode()


def test_the_full_report_of_the_rfc() -> None:
    """RFC 5965 appendix B.2."""
    report = read_report(
        arf(
            "Feedback-Type: abuse\nUser-Agent: SomeGenerator/1.0\nVersion: 1\n"
            "Original-Mail-From: <spammer@example.net>\nOriginal-Rcpt-To: <user@example.com>\n"
            "Authentication-Results: mail.example.com;\n  spf=fail mail=spammer@example.com\n"
            "Reported-URI: http://example.net/earn.html\nReported-URI: mailto:user@example.com"
        )
    )
    assert report.kind is Kind.COMPLAINT
    assert report.feedback is not None
    assert report.feedback.type == "abuse"
    assert report.feedback.field("authentication-results").endswith("=spammer@example.com")
    assert [name for name, _ in report.feedback.fields].count("reported-uri") == 2
    assert [one.address for one in report.recipients] == ["user@example.com"]
    assert report.returned.message_id == "8787@example.net"
    assert "b_1@bounce.example.net" in report.return_paths


def test_several_recipients_of_one_complaint_are_all_named() -> None:
    report = read_report(
        arf("Feedback-Type: abuse\nOriginal-Rcpt-To: a@b.example\nOriginal-Rcpt-To: c@b.example")
    )
    assert [one.address for one in report.recipients] == ["a@b.example", "c@b.example"]


def test_a_report_that_names_nobody_means_whom_the_mail_was_for() -> None:
    report = read_report(arf("Feedback-Type: opt-out\nVersion: 0.1"))
    assert [one.address for one in report.recipients] == ["user@example.com"]
    assert report.feedback is not None
    assert report.feedback.type == "opt-out"


def test_the_loop_without_fields_of_its_own_is_a_complaint() -> None:
    raw = (
        b"From: staff@hotmail.com\nSubject: complaint about message from 192.0.2.1\n"
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/rfc822\n\n"
        b"X-HmXmrOriginalRecipient: ada@example.org\nFrom: shop@shop.example\n\nHello\n--b--\n"
    )
    report = read_report(raw)
    assert report.kind is Kind.COMPLAINT
    assert [one.address for one in report.recipients] == ["ada@example.org"]


@pytest.mark.parametrize(
    "headers",
    [
        "Auto-Submitted: auto-replied\nSubject: Re: Hello",
        "X-Autoreply: yes\nSubject: Re: Hello",
        "Precedence: auto_reply\nSubject: Re: Hello",
        "Subject: Automatic reply: Hello",
        "Subject: Out of Office: Hello",
        "Subject: AUTO: Ada is out of the office",
        "Subject: =?utf-8?q?R=C3=A9ponse_automatique=3A_Bonjour?=",
        "Subject: Abwesenheitsnotiz: Hallo",
        "Return-Path: <>\nSubject: Thank you for your mail",
    ],
)
def test_automatic_answers_are_kept_apart(headers: str) -> None:
    raw = f"From: ada@example.org\n{headers}\n\nI am away until Monday.\n".encode()
    assert read_report(raw).kind is Kind.AUTO_REPLY


@pytest.mark.parametrize(
    "headers",
    [
        "Auto-Submitted: auto-generated\nSubject: Your invoice",
        "Auto-Submitted: no\nSubject: Hello",
        "Precedence: bulk\nSubject: News",
        "Subject: Re: Is the office open?",
        "Subject: Vacation homes at the sea",
        "Subject: Absence makes the heart grow fonder",
        "Subject: Auto: new models",
    ],
)
def test_what_no_mail_of_ours_caused_is_no_answer(headers: str) -> None:
    raw = f"From: ada@example.org\n{headers}\n\nHello.\n".encode()
    assert read_report(raw).kind is Kind.NONE


def test_a_challenge_is_no_bounce() -> None:
    raw = (
        b"From: ada@example.org\nX-Autorespond: 1\nSubject: Your email requires verification\n\n"
        b"The message you sent requires that you verify that you are a real live human being.\n"
    )
    assert read_report(raw).kind is Kind.CHALLENGE


def test_a_notification_of_ses_that_comes_by_mail_is_read() -> None:
    raw = (
        b"From: no-reply@sns.amazonaws.com\nSubject: AWS Notification Message\n\n"
        b'{"Type": "Notification", "Message": "{\\"notificationType\\":\\"Bounce\\",\\"bounce\\":'
        b'{\\"bouncedRecipients\\":[{\\"emailAddress\\":\\"ada@example.org\\",\\"status\\":\\"5.1.1\\",'
        b'\\"diagnosticCode\\":\\"smtp; 550 5.1.1 user unknown\\"}]}}"}\n\n--\nTo leave\n'
    )
    report = read_report(raw)
    assert report.kind is Kind.BOUNCE
    (one,) = report.recipients
    assert (one.address, one.status, one.reply_code) == ("ada@example.org", "5.1.1", "550")
