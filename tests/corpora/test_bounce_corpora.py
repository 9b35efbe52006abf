"""Real bounces, complaints and ordinary mail of public projects, against the bars of this part.

Run with `-s` (or `-rP`) to see the figures. What a reason of a corpus is among ours stands here as
data: where a corpus draws another line, more than one of ours is right, and why is said beside it.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpora.conftest import family_names, files_of

from mailyard.protocol.report import Kind, Report, read_report
from mailyard.protocol.report.codes import find_reply_code, find_status
from mailyard.sending.bounce import Judged, Reason, classify, classify_reply

R = Reason
# Sisimai's reasons among ours.
SISIMAI: dict[str, set[Reason]] = {
    "authfailure": {R.AUTH_FAILURE},
    "badreputation": {R.REPUTATION},
    "blocked": {R.BLOCKED},
    # A header twice breaks RFC 5322: theirs is a content error in one release, this in another.
    "contenterror": {R.CONTENT, R.NOT_COMPLIANT},
    "exceedlimit": {R.TOO_BIG},  # over this recipient's limit, where mesgtoobig is the server's
    "expired": {R.EXPIRED},
    "failedstarttls": {R.TLS_REQUIRED},
    "feedback": {R.COMPLAINT},
    # "User unknown" as the answer to the content. The words are right; only the certainty differs,
    # and that is in hard or soft.
    "filtered": {R.FILTERED, R.USER_UNKNOWN},
    "hasmoved": {R.MOVED},
    "hostunknown": {R.HOST_UNKNOWN},
    "mailboxfull": {R.MAILBOX_FULL},
    "mailererror": {R.MAILER_ERROR},
    "mesgtoobig": {R.TOO_BIG},
    "networkerror": {R.NETWORK},
    "norelaying": {R.RELAYING_DENIED},
    "notaccept": {R.NOT_ACCEPTING},
    "notcompliantrfc": {R.NOT_COMPLIANT},
    "onhold": {R.ON_HOLD, R.UNDEFINED},  # theirs also for "no reason given, and a recipient is"
    "policyviolation": {R.POLICY},
    "rejected": {R.SENDER_REJECTED},
    "requireptr": {R.REVERSE_DNS},
    "securityerror": {R.SECURITY},
    "spamdetected": {R.SPAM},
    "speeding": {R.RATE_LIMITED},
    "suspend": {R.MAILBOX_DISABLED},
    "syntaxerror": {R.PROTOCOL},
    "systemerror": {R.SYSTEM_ERROR},
    "systemfull": {R.SYSTEM_FULL},
    "toomanyconn": {R.TOO_MANY_CONNECTIONS, R.RATE_LIMITED},  # theirs is both
    "undefined": {R.UNDEFINED},
    "userunknown": {R.USER_UNKNOWN},
    "virusdetected": {R.VIRUS},
}
# The classes of postalsys/bounce-classifier among ours.
POSTALSYS: dict[str, set[Reason]] = {
    "greylisting": {R.GREYLISTED},
    "invalid_address": {R.USER_UNKNOWN, R.HOST_UNKNOWN},
    "ip_blacklisted": {R.BLOCKED},
    "mailbox_disabled": {R.MAILBOX_DISABLED},
    "mailbox_full": {R.MAILBOX_FULL},
    "policy_blocked": {R.POLICY},
    "rate_limited": {R.RATE_LIMITED, R.TOO_MANY_CONNECTIONS},
    "relay_denied": {R.RELAYING_DENIED},
    "server_error": {R.SYSTEM_ERROR},
    "spam_blocked": {R.SPAM},
    "user_unknown": {R.USER_UNKNOWN},
}
# What a file's name says in the corpus of BounceParser: (its beginning or part, ours, hard).
BOUNCEPARSER: tuple[tuple[str, set[Reason], bool | None], ...] = (
    ("user-unknown-disabled", {R.MAILBOX_DISABLED}, False),
    ("polish-unknown", {R.MAILBOX_DISABLED, R.USER_UNKNOWN}, None),  # 5.2.1, "not available"
    ("me-user-unknown", {R.MOVED, R.USER_UNKNOWN}, True),  # 5.1.6, "no longer on server"
    ("host-unknown", {R.HOST_UNKNOWN}, True),
    ("unknown", {R.USER_UNKNOWN}, True),
    ("doesnotexist", {R.USER_UNKNOWN}, True),
    ("nomailbox", {R.USER_UNKNOWN}, True),
    ("rcpt-dne", {R.USER_UNKNOWN}, True),
    ("badrcptto", {R.USER_UNKNOWN}, True),
    ("no-such-domain", {R.HOST_UNKNOWN}, True),
    ("quota", {R.MAILBOX_FULL}, False),
    # Their label is for whatever refuses a mail for what it is or where it comes from.
    ("spam-rejection", {R.SPAM, R.BLOCKED, R.POLICY, R.VIRUS, R.CONTENT}, False),
    ("message-too-large", {R.TOO_BIG}, False),
    ("relaying-denied", {R.RELAYING_DENIED}, False),
    ("not-a-relay", {R.RELAYING_DENIED}, False),
)
NO_STATUS_OF_A_SERVER = ("5.0.9", "4.0.9")  # Sisimai's own numbers, when no code was found


def bounces(corpora: Path, family: str) -> Iterator[tuple[str, bytes]]:
    """(name below the family's folder, bytes)"""
    for name, raw in files_of(corpora / f"bounce-{family}"):
        yield name.removeprefix(f"bounce-{family}/"), raw


class Tally:
    """Right ones of how many, and which were wrong."""

    def __init__(self) -> None:
        self.right: Counter[str] = Counter()
        self.of: Counter[str] = Counter()
        self.wrong: list[str] = []

    def count(self, what: str, right: bool, about: str) -> None:
        self.of[what] += 1
        self.right[what] += right
        if not right:
            self.wrong.append(f"{what}: {about}")

    def share(self, what: str) -> float:
        return self.right[what] / self.of[what]

    def __str__(self) -> str:
        return ", ".join(
            f"{what} {self.right[what]}/{of} = {self.share(what):.1%}"
            for what, of in self.of.items()
        )


def count_sisimai(corpora: Path, tally: Tally) -> None:
    """Every recipient that Sisimai's tables expect."""
    mails = dict(bounces(corpora, "sisimai"))
    for name, expected in json.loads(mails["expected.json"]).items():
        if name not in mails:
            continue
        report = read_report(mails[name])
        judged = classify(report)
        for index, entry in enumerate(expected):
            count_one(tally, name, entry, report, judged[index] if index < len(judged) else None)


def count_one(
    tally: Tally, name: str, entry: dict[str, str], report: Report, judged: Judged | None
) -> None:
    wanted = entry["reason"]
    about = f"{name}: {wanted}, {report.kind}"
    if wanted in ("vacation", "delivered"):
        kind = Kind.AUTO_REPLY if wanted == "vacation" else Kind.DELIVERED
        for what in ("recipient and status", "hard or soft", "reason"):
            tally.count(what, report.kind is kind, about)
        return
    if wanted == "feedback":
        complaint = report.feedback
        tally.count(
            "recipient and status",
            complaint is not None and complaint.type == entry["other"],
            about,
        )
        tally.count("hard or soft", report.kind is Kind.COMPLAINT, about)
        tally.count("reason", report.kind is Kind.COMPLAINT, about)
        return
    if judged is None:
        for what in ("recipient and status", "hard or soft", "reason"):
            tally.count(what, False, about)
        return
    verdict = judged.verdict
    about = f"{name}: {wanted} {entry['status']}, {verdict}"
    known = not entry["status"].startswith(NO_STATUS_OF_A_SERVER)
    tally.count(
        "recipient and status",
        "@" in judged.recipient.address and (not known or verdict.status == entry["status"]),
        about,
    )
    tally.count("hard or soft", verdict.hard == bool(entry["hardbounce"]), about)
    also = entry.get("also_accepted_reason", [])
    accepted = [wanted, *([also] if isinstance(also, str) else also)]
    tally.count("reason", any(verdict.reason in SISIMAI[one] for one in accepted), about)


def count_flufl(corpora: Path, tally: Tally) -> None:
    """Every address that flufl.bounce finds, and whether it lasts."""
    mails = dict(bounces(corpora, "flufl"))
    for name, expected in json.loads(mails["expected.json"]).items():
        if name not in mails:
            continue
        report = read_report(mails[name])
        found = {
            address.lower()
            for one in report.recipients
            for address in (one.address, one.original_recipient)
        }
        for address in (*expected["temporary"], *expected["permanent"]):
            about = f"{name}: {address} of {found}"
            tally.count("recipient and status", address.lower() in found, about)


def count_bounceparser(corpora: Path, tally: Tally) -> None:
    """What the names of the files say of the first recipient."""
    for name, raw in bounces(corpora, "bounceparser"):
        label = next((entry for entry in BOUNCEPARSER if entry[0] in name), None)
        if label is None:
            continue
        judged = classify(read_report(raw))
        about = f"{name}: {judged[0].verdict if judged else 'nobody'}"
        tally.count("recipient and status", bool(judged), about)
        tally.count("reason", bool(judged) and judged[0].verdict.reason in label[1], about)
        if label[2] is not None:
            tally.count("hard or soft", bool(judged) and judged[0].verdict.hard == label[2], about)


def test_recipients_statuses_and_reasons_reach_the_bars(corpora: Path) -> None:
    tally = Tally()
    for count in (count_sisimai, count_flufl, count_bounceparser):
        of_family = Tally()
        count(corpora, of_family)
        print(f"{count.__name__[6:]}: {of_family}")
        tally.right += of_family.right
        tally.of += of_family.of
        tally.wrong += of_family.wrong
    print(f"all: {tally}")
    print("\n".join(sorted(tally.wrong)))
    assert tally.share("recipient and status") >= 0.98
    assert tally.share("hard or soft") >= 0.97
    assert tally.share("reason") >= 0.92


def test_replies_are_understood_without_their_mail(corpora: Path) -> None:
    tally = Tally()
    for entry in json.loads((corpora / "bounce-smtp-replies" / "smtp-replies.json").read_bytes()):
        if "vacation" in entry["labels"]:  # a person's words, no server's
            continue
        text = entry["text"]
        verdict = classify_reply(find_reply_code(text), find_status(text), text)
        mapping = SISIMAI if entry["scheme"] == "sisimai" else POSTALSYS
        right = any(verdict.reason in mapping[label] for label in entry["labels"])
        tally.count("reason", right, f"{text!r}: {entry['labels']}, {verdict.reason}")
    print(f"replies: {tally}")
    print("\n".join(tally.wrong))
    assert tally.share("reason") >= 0.92


def test_complaints_are_told_from_bounces_by_their_names(corpora: Path) -> None:
    for name, raw in bounces(corpora, "phpbouncehandler"):
        report = read_report(raw)
        if name.startswith("fbl-"):
            assert report.kind is Kind.COMPLAINT, name
        elif name.endswith(".eml"):
            assert report.kind in (Kind.BOUNCE, Kind.DELAY), name
            assert classify(report), name


def test_the_fields_of_complaints_are_those_of_mail_auth(corpora: Path) -> None:
    folder = corpora / "bounce-misc" / "mail-auth" / "arf"
    for path in sorted(folder.glob("*.eml")):
        expected = json.loads(path.with_suffix(".json").read_bytes())
        feedback = read_report(path.read_bytes()).feedback
        assert feedback is not None, path
        assert feedback.type.replace("-", "") == expected["feedback_type"].lower()
        for name in ("user_agent", "original_mail_from", "original_rcpt_to", "source_ip"):
            assert feedback.field(name.replace("_", "-")) == (expected[name] or ""), (path, name)


def test_line_ends_make_no_difference(corpora: Path) -> None:
    mails = dict(bounces(corpora, "sisimai"))
    compared = 0
    for name, raw in mails.items():
        folder = name.split("/")[1] if "/" in name else ""
        twin = mails.get(name.replace(f"/{folder}/", "/bsd/"))
        if folder in ("dos", "mac") and twin is not None:
            ours, theirs = read_report(raw), read_report(twin)
            assert ours.kind is theirs.kind, name
            assert [one.address for one in ours.recipients] == [
                one.address for one in theirs.recipients
            ], name
            compared += 1
    print(f"{compared} mails compared with themselves in other line ends")
    assert compared > 50


def says_that_it_is_a_report(raw: bytes) -> bool:
    """A mail that is a report by its own headers: such are in the ordinary families too."""
    lower = raw[: 64 * 1024].lower()
    return any(
        mark in lower
        for mark in (
            b"multipart/report", b"message/delivery-status", b"message/feedback-report",
            b"x-failed-recipients:", b"\nfrom: mailer-daemon", b"mailer-daemon@",
            b"mail delivery system", b"mail delivery subsystem", b"subject: undeliver",
            b"subject: mail system error - returned mail", b"subject: returned mail",
        )
    )  # fmt: skip


def test_ordinary_mail_is_not_taken_for_a_report(corpora: Path) -> None:
    ordinary = 0
    mistaken: list[str] = []
    families = [*family_names("mime-*"), *family_names("spam-*")]
    for family in families:
        for name, raw in files_of(corpora / family):
            report = read_report(raw)  # of anything: no exception
            if b"\n" not in raw or says_that_it_is_a_report(raw):
                continue
            ordinary += 1
            if report.kind in (Kind.BOUNCE, Kind.DELAY, Kind.COMPLAINT, Kind.CHALLENGE):
                mistaken.append(f"{name}: {report.kind}, {report.reason}")
    print(f"false positives: {len(mistaken)} of {ordinary} = {len(mistaken) / ordinary:.3%}")
    print("\n".join(mistaken))
    assert len(mistaken) < ordinary / 1_000


@pytest.mark.parametrize("family", family_names("bounce-*"))
def test_nothing_raises(corpora: Path, family: str) -> None:
    for name, raw in files_of(corpora / family):
        for cut in (raw, raw[: len(raw) // 2], raw[len(raw) // 3 :], raw.replace(b":", b"\0", 50)):
            for judged in classify(read_report(cut)):
                assert judged.verdict.reason in Reason, name
