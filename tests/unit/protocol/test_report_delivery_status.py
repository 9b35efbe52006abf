"""Delivery status notifications: RFC 3464 as it is written, and as servers write it."""

import pytest

from mailyard.protocol.report import Kind, Recipient, read_report
from mailyard.protocol.report.delivery_status import address_of, groups_of, recipients_of


def recipients(text: str) -> list[Recipient]:
    return recipients_of(groups_of(text))


def dsn(status: str, notice: str = "This is the mail system.", returned: str = "") -> bytes:
    return (
        "From: MAILER-DAEMON@mx.example.net\r\nTo: sender@example.com\r\n"
        "Subject: Undelivered Mail Returned to Sender\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        f"--b\r\nContent-Type: text/plain\r\n\r\n{notice}\r\n"
        f"--b\r\nContent-Type: message/delivery-status\r\n\r\n{status}\r\n"
        f"--b\r\nContent-Type: message/rfc822\r\n\r\n{returned}\r\n--b--\r\n"
    ).encode()


# RFC 3464 appendix E.1
SIMPLE = """Reporting-MTA: dns; cs.utk.edu

Original-Recipient: rfc822;louisl@larry.slip.umd.edu
Final-Recipient: rfc822;louisl@larry.slip.umd.edu
Action: failed
Status: 4.0.0
Diagnostic-Code: smtp; 426 connection timed out
Last-Attempt-Date: Thu, 7 Jul 1994 17:15:49 -0400
"""


def test_the_simple_report_of_the_rfc() -> None:
    report = read_report(dsn(SIMPLE, returned="Message-ID: <1@example.com>\r\n\r\nHello"))
    assert report.kind is Kind.BOUNCE
    assert report.reporting_mta == "cs.utk.edu"
    assert report.returned.message_id == "1@example.com"
    (one,) = report.recipients
    assert one.address == one.original_recipient == "louisl@larry.slip.umd.edu"
    assert (one.action, one.status) == ("failed", "4.0.0")
    assert one.diagnostic == "426 connection timed out"


def test_the_report_of_the_rfc_for_several_recipients() -> None:
    """RFC 3464 appendix E.2: one failed, one delayed, one failed."""
    found = recipients(
        "Reporting-MTA: dns; cs.utk.edu\n\n"
        "Original-Recipient: rfc822;arathib@vnet.ibm.com\n"
        "Final-Recipient: rfc822;arathib@vnet.ibm.com\n"
        "Action: failed\nStatus: 5.0.0 (permanent failure)\n"
        "Diagnostic-Code: smtp;\n 550 'arathib@vnet.IBM.COM' is not a\n registered gateway user\n"
        "Remote-MTA: dns; vnet.ibm.com\n\n"
        "Original-Recipient: rfc822;johnh@hpnjld.njd.hp.com\n"
        "Final-Recipient: rfc822;johnh@hpnjld.njd.hp.com\n"
        "Action: delayed\nStatus: 4.0.0 (hpnjld.njd.jp.com: host name lookup failure)\n\n"
        "Original-Recipient: rfc822;wsnell@sdcc13.ucsd.edu\n"
        "Final-Recipient: rfc822;wsnell@sdcc13.ucsd.edu\n"
        "Action: failed\nStatus: 5.0.0\nDiagnostic-Code: smtp; 550 user unknown\n"
        "Remote-MTA: dns; sdcc13.ucsd.edu\n"
    )
    assert [one.action for one in found] == ["failed", "delayed", "failed"]
    assert found[0].diagnostic == "550 'arathib@vnet.IBM.COM' is not a registered gateway user"
    assert found[0].remote_mta == "vnet.ibm.com"
    assert found[1].diagnostic == "hpnjld.njd.jp.com: host name lookup failure"


def test_recipients_without_a_blank_line_between_them_are_two() -> None:
    found = recipients(
        "Final-Recipient: rfc822; a@example.org\nAction: failed\nStatus: 5.1.1\n"
        "Final-Recipient: rfc822; b@example.org\nAction: failed\nStatus: 5.2.2\n"
    )
    assert [(one.address, one.status) for one in found] == [
        ("a@example.org", "5.1.1"),
        ("b@example.org", "5.2.2"),
    ]


def test_a_blank_line_between_every_two_fields_does_not_part_them() -> None:
    found = recipients(
        "Reporting-MTA: dns; mx.example.net\n\nFinal-Recipient: rfc822; a@example.org\n\n"
        "Action: failed\n\nFinal-Recipient: rfc822; b@example.org\n\nAction: failed\n"
    )
    assert [one.address for one in found] == ["a@example.org", "b@example.org"]


def test_fields_in_one_group_with_those_of_the_message_are_the_recipients() -> None:
    found = recipients(
        "Reporting-MTA: dns; mx.example.net\nDiagnostic-Code: smtp; 550 5.1.1 no\n"
        "Status: 5.1.1\nFinal-Recipient: rfc822; a@example.org\nAction: failed\n"
    )
    assert [(one.address, one.status) for one in found] == [("a@example.org", "5.1.1")]


def test_the_lines_of_a_long_reply_belong_to_its_field() -> None:
    (one,) = recipients(
        "Final-Recipient: rfc822; a@example.org\nAction: failed\n"
        "Diagnostic-Code: smtp; 550-Please turn on\n550-SMTP authentication\n550 first\n"
    )
    assert one.diagnostic == "550-Please turn on 550-SMTP authentication 550 first"


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("rfc822; a@example.org", "a@example.org"),
        ("RFC822;<a@example.org>", "a@example.org"),
        ("a@example.org", "a@example.org"),
        ('rfc822; "Ada" <a@example.org> (Ada)', "a@example.org"),
        ("X400; /S=ada/", "/S=ada/"),
        ("utf-8; ä@example.org", "ä@example.org"),
        ("", ""),
    ],
)
def test_an_address_is_found_in_its_field(value: str, address: str) -> None:
    assert address_of(value) == address


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("failed", Kind.BOUNCE),
        ("Failed (sorry)", Kind.BOUNCE),
        ("delayed", Kind.DELAY),
        ("delivered", Kind.DELIVERED),
        ("relayed", Kind.DELIVERED),
        ("expanded", Kind.DELIVERED),
    ],
)
def test_the_action_says_what_the_report_is(action: str, kind: Kind) -> None:
    status = f"Final-Recipient: rfc822; a@example.org\nAction: {action}\nStatus: 5.0.0\n"
    assert read_report(dsn(status)).kind is kind


def test_one_failed_recipient_among_delivered_ones_makes_a_bounce() -> None:
    status = (
        "Final-Recipient: rfc822; a@example.org\nAction: delivered\nStatus: 2.0.0\n\n"
        "Final-Recipient: rfc822; b@example.org\nAction: failed\nStatus: 5.1.1\n"
    )
    assert read_report(dsn(status)).kind is Kind.BOUNCE


@pytest.mark.parametrize(
    ("given", "diagnostic", "status"),
    [
        ("5.0.0", "550 5.1.1 no such user", "5.1.1"),
        ("5.1.1", "550 unknown", "5.1.1"),
        ("4.4.7", "450 4.7.1 rejected", "4.7.1"),
        ("5.0.0", "554 4.4.7 Message expired: <421 4.4.2 Connection timed out>", "4.4.2"),
        ("5.0.0", "550 from 5.1.1.1 by Exim 4.2.3x", "5.0.0"),
    ],
)
def test_the_most_telling_status_is_taken(given: str, diagnostic: str, status: str) -> None:
    fields = (
        f"Final-Recipient: rfc822; a@example.org\nAction: failed\nStatus: {given}\n"
        f"Diagnostic-Code: smtp; {diagnostic}\n"
    )
    assert read_report(dsn(fields)).recipients[0].status == status


def test_line_ends_do_not_matter() -> None:
    lines = dsn(SIMPLE).replace(b"\r\n", b"\n")
    reports = [read_report(lines.replace(b"\n", end)) for end in (b"\r\n", b"\n", b"\r")]
    assert {report.kind for report in reports} == {Kind.BOUNCE}
    assert len({report.recipients[0].diagnostic for report in reports}) == 1


def test_a_read_receipt_reports_that_the_mail_came() -> None:
    raw = (
        b"From: ada@example.org\nTo: sender@example.com\nSubject: Read: Hello\n"
        b"Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n"
        b"--b\n\nYour message was displayed.\n--b\nContent-Type: message/disposition-notification\n"
        b"\nFinal-Recipient: rfc822; ada@example.org\n"
        b"Disposition: manual-action/MDN-sent-manually; displayed\n--b--\n"
    )
    assert read_report(raw).kind is Kind.DELIVERED


def test_a_filter_that_refuses_in_a_disposition_makes_a_bounce() -> None:
    raw = (
        b"From: postmaster@example.org\nSubject: Automatically rejected mail\n"
        b"Content-Type: multipart/report; report-type=disposition-notification; boundary=b\n\n"
        b"--b\n\nYour message to <ada@example.org> was automatically rejected:\nQuota exceeded\n"
        b"--b\nContent-Type: message/disposition-notification\n"
        b"\nFinal-Recipient: rfc822; ada@example.org\n"
        b"Disposition: automatic-action/MDN-sent-automatically; deleted\n--b--\n"
    )
    report = read_report(raw)
    assert report.kind is Kind.BOUNCE
    assert report.recipients[0].address == "ada@example.org"
