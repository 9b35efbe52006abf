"""What refusals mean, and which of them say that an address is dead."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.protocol.report import Stage, read_report
from mailyard.sending.bounce import Reason, classify, classify_reply

R = Reason


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "reason"),
    [
        (550, "5.1.1", "<a@b.example>: Recipient address rejected: User unknown", R.USER_UNKNOWN),
        (550, "", "No such user here", R.USER_UNKNOWN),
        (550, "", "Benutzer existiert nicht", R.USER_UNKNOWN),
        (550, "5.1.2", "Host unknown", R.HOST_UNKNOWN),
        (551, "5.1.6", "not our customer", R.MOVED),
        (556, "5.1.10", "Recipient address has null MX", R.NOT_ACCEPTING),
        (552, "5.2.2", "Over quota", R.MAILBOX_FULL),
        (452, "4.2.2", "The email account that you tried to reach is over quota", R.MAILBOX_FULL),
        (550, "5.2.1", "The email account that you tried to reach is disabled", R.MAILBOX_DISABLED),
        (550, "", "Message rejected by recipient", R.FILTERED),
        (421, "4.4.2", "Connection timed out", R.EXPIRED),
        (554, "5.4.6", "Too many hops", R.NETWORK),
        (421, "", "Too many connections from your host", R.TOO_MANY_CONNECTIONS),
        (451, "4.7.1", "Please try again slower", R.RATE_LIMITED),
        (450, "4.2.0", "Greylisted, please retry in 5 minutes", R.GREYLISTED),
        (451, "4.3.0", "Temporary server error", R.SYSTEM_ERROR),
        (452, "4.3.1", "Insufficient system storage", R.SYSTEM_FULL),
        (503, "5.5.1", "Bad sequence of commands", R.PROTOCOL),
        (554, "5.7.1", "Client host [192.0.2.1] blocked using zen.spamhaus.org", R.BLOCKED),
        (550, "5.7.1", "very low reputation of the sending domain", R.REPUTATION),
        (550, "5.7.25", "The IP address has no PTR record", R.REVERSE_DNS),
        (550, "5.7.26", "does not pass DMARC verification", R.AUTH_FAILURE),
        (553, "5.1.8", "Domain of sender address does not exist", R.SENDER_REJECTED),
        (554, "5.7.1", "Relay access denied", R.RELAYING_DENIED),
        (530, "5.7.0", "Must issue a STARTTLS command first", R.TLS_REQUIRED),
        (530, "5.7.0", "Authentication required", R.SECURITY),
        (550, "5.7.0", "Local policy violation", R.POLICY),
        (550, "", "This message was classified as spam", R.SPAM),
        (554, "5.7.0", "Virus detected", R.VIRUS),
        (554, "5.6.0", "Malformed MIME header", R.CONTENT),
        (550, "5.7.1", "This message is not RFC 5322 compliant", R.NOT_COMPLIANT),
        (552, "5.3.4", "Message size exceeds fixed limit", R.TOO_BIG),
        (550, "", "", R.UNDEFINED),
        (550, "5.2.2", "", R.MAILBOX_FULL),
        (550, "5.1.1", "", R.USER_UNKNOWN),
    ],
)
def test_a_servers_answer_has_a_reason(code: int, enhanced: str, text: str, reason: R) -> None:
    assert classify_reply(code, enhanced, text).reason is reason


@pytest.mark.parametrize(
    ("code", "enhanced", "text", "hard", "suppresses"),
    [
        (550, "5.1.1", "user unknown", True, True),
        (550, "5.7.1", "user unknown", True, False),  # a policy rejection, whatever it says
        (450, "4.1.1", "user unknown", True, False),  # not for good yet
        (550, "5.7.1", "access denied", False, False),
        (552, "5.2.2", "mailbox full", False, False),
        (550, "5.2.1", "mailbox disabled", False, False),
        (554, "5.7.1", "message looks like spam", False, False),
        (556, "5.1.10", "null MX", True, True),
        (451, "4.4.4", "null MX", False, False),
    ],
)
def test_only_a_dead_address_is_suppressed(
    code: int, enhanced: str, text: str, hard: bool, suppresses: bool
) -> None:
    verdict = classify_reply(code, enhanced, text)
    assert (verdict.hard, verdict.suppresses) == (hard, suppresses)


@settings(max_examples=200)
@given(
    st.integers(200, 599), st.from_regex(r"[245]\.7\.\d{1,3}", fullmatch=True), st.text(max_size=80)
)
def test_a_policy_rejection_never_suppresses(code: int, enhanced: str, text: str) -> None:
    assert not classify_reply(code, enhanced, f"user unknown {text}").suppresses


def test_an_unknown_user_after_the_content_was_seen_is_not_certain() -> None:
    assert classify_reply(550, "", "user unknown", Stage.RCPT).hard
    after_data = classify_reply(550, "", "user unknown", Stage.DATA)
    assert (after_data.reason, after_data.hard) == (R.FILTERED, False)
    assert classify_reply(550, "5.1.1", "user unknown", Stage.DATA).hard


def test_a_name_that_is_not_found_today_may_be_found_tomorrow() -> None:
    assert classify_reply(550, "5.1.2", "NXDOMAIN").reason is R.HOST_UNKNOWN
    assert classify_reply(451, "4.4.3", "NXDOMAIN").reason is R.NETWORK


def test_the_codes_in_a_long_answer_do_not_part_its_words() -> None:
    text = "550-5.7.1 Messages with multiple 550 5.7.1 addresses in From: are not accepted"
    assert classify_reply(550, "5.7.1", text).reason is R.NOT_COMPLIANT


def bounce(status: str, diagnostic: str, notice: str) -> bytes:
    return (
        "From: MAILER-DAEMON@example.net\nSubject: Returned mail\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
        f"--b\n\n{notice}\n--b\nContent-Type: message/delivery-status\n\n"
        f"Final-Recipient: rfc822; ada@example.org\nAction: failed\nStatus: {status}\n"
        f"{diagnostic}\n--b--\n"
    ).encode()


def test_what_the_refusing_server_said_outweighs_the_reporting_ones_words() -> None:
    raw = bounce(
        "5.2.2", "Diagnostic-Code: smtp; 552 mailbox full", "If this is spam, the user is unknown."
    )
    (judged,) = classify(read_report(raw))
    assert judged.verdict.reason is R.MAILBOX_FULL
    assert judged.verdict.evidence == "552 mailbox full"


def test_a_weak_word_waits_for_a_better_one() -> None:
    raw = bounce(
        "5.0.0", "Diagnostic-Code: smtp; 554 rejected", "<ada@example.org>: the mailbox is full\n"
    )
    (judged,) = classify(read_report(raw))
    assert judged.verdict.reason is R.MAILBOX_FULL
    assert judged.verdict.evidence == "<ada@example.org>: the mailbox is full"


def test_a_complaint_suppresses_and_an_automatic_answer_says_nothing() -> None:
    complaint = (
        b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n"
        b"Content-Type: message/feedback-report\n\nFeedback-Type: abuse\n"
        b"Original-Rcpt-To: ada@example.org\n--b--\n"
    )
    (judged,) = classify(read_report(complaint))
    assert (judged.verdict.reason, judged.verdict.suppresses) == (R.COMPLAINT, True)
    away = b"From: ada@example.org\nAuto-Submitted: auto-replied\nSubject: Away\n\nUser unknown\n"
    assert classify(read_report(away)) == []


@settings(max_examples=200)
@given(st.text(max_size=200), st.text(max_size=8), st.text(max_size=4))
def test_any_answer_is_judged(text: str, enhanced: str, code: str) -> None:
    assert classify_reply(code, enhanced, text).reason in Reason


@pytest.mark.parametrize(
    ("kind", "suppresses"),
    [("abuse", True), ("opt-out", True), ("auth-failure", False), ("not-spam", False)],
)
def test_only_a_persons_complaint_suppresses(kind: str, suppresses: bool) -> None:
    raw = (
        "Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n"
        f"Content-Type: message/feedback-report\n\nFeedback-Type: {kind}\n"
        "Original-Rcpt-To: ada@example.org\n--b--\n"
    ).encode()
    (judged,) = classify(read_report(raw))
    assert judged.verdict.suppresses is suppresses


def test_nobody_is_suppressed_while_his_mail_is_still_tried() -> None:
    raw = bounce("5.1.1", "Diagnostic-Code: smtp; 550 user unknown", "")
    (judged,) = classify(read_report(raw.replace(b"Action: failed", b"Action: delayed")))
    assert (judged.verdict.hard, judged.verdict.suppresses) == (True, False)
