"""`read_report`: any mail that came back, standard or not, as one `Report`. Never raises.

The order matters: a complaint and a delivery status say what they are; a notice in words has to
come from a mail system and to say that something failed; what is left is an automatic answer or an
ordinary mail.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from mailyard.protocol.mime.address_list import parse_addresses
from mailyard.protocol.mime.message import addresses, message_id, readable
from mailyard.protocol.report import automatic, delivery_status, feedback, notice
from mailyard.protocol.report.codes import (
    find_reply_code,
    find_stage,
    find_status,
    is_specific,
)
from mailyard.protocol.report.parts import Parts, take_apart
from mailyard.protocol.report.phrase import Phrases, words_of
from mailyard.protocol.report.values import Feedback, Kind, Recipient, Report, Returned

_SUBJECT_CHARACTERS = 500
_NOTICE_CHARACTERS = 16_000
_RETURN_PATHS = 20
_MAIL_SYSTEM_LOCAL_PART = re.compile(
    r"^(?:mailer?[-_.]?daemon|post[-_.]?master|mdaemon|maildaemon|mail[-_.]delivery|mmdf|ndr|"
    r"bounces?|mail[-_]?bounce|mailsystem|no-?reply-?bounce|maildelivery.*)(?:[+_.-].*)?$",
    re.IGNORECASE,
)
_MAIL_SYSTEMS = Phrases(
    [
        (phrase, True)
        for phrase in (
            "mail {delivery|deliver} {system|subsystem|service|agent|}", "mailer daemon", "postmaster",
            "system administrator", "mail {administrator|admin|system|subsystem}", "delivery {subsystem|system|agent}",
            "{returned|undelivered|bounced} mail", "internet mail delivery", "mail router", "content filter",
            "mdaemon", "jetmail system", "mailsystem", "mail server", "mailserver", "mmsc ndr administrator",
            "{antivirus|anti virus} * gateway", "symantec antivirus", "email delivery", "lsmtp",
        )
    ]
)  # fmt: skip
_SUBJECTS = Phrases(
    [
        (phrase, True)
        for phrase in (
            "failure notice", "{undeliverable|undelivered|undeliverable mail}", "returned {mail|to sender}",
            "delivery status {notification|}", "{delivery|mail delivery|message delivery} * {failure|failed|problem|error|status|notification|report}",
            "failure * delivery", "failed mail", "{could|can} not be delivered", "couldnt be delivered", "cannot be delivered",
            "mail {system error|error|not delivered|failure}", "{message|mail|email} status", "non {delivery|remis|deliverable}",
            "nondeliverable", "nondelivery", "warning * {delayed|could not send|user unknown}", "delayed mail", "message delayed",
            "user unknown", "unknown user", "considered unsolicited", "{blocked|rejected|refused} {message|mail|by}",
            "{message|mail|email} * {blocked|rejected|refused|bounced|quarantined}", "automatically rejected",
            "unzustellbar", "{nicht|nicht} zugestellt", "unzustellbare", "rückläufer", "zustellung * fehlgeschlagen",
            "échec * remise", "echec * distribution", "non remis", "remise impossible", "mancata consegna", "consegna * fallita",
            "no se puede entregar", "no entregado", "correo devuelto", "falha na entrega", "não entregue", "devolvida",
            "недоставленное", "не доставлено", "ошибка доставки", "возврат", "odrzucona", "niedostarcz", "zwrot",
            "onbestelbaar", "niet bezorgd", "kunde inte levereras", "returned mail", "bounce notification", "bounce",
            "you * are not member", "loop alert", "mail loop", "delivery * {incomplete|temporarily}",
            "配信", "エラー", "不達", "送信できません", "退信", "系统退信", "无法", "邮件发送失败", "お届け",
        )
    ]
)  # fmt: skip
_NULL_PATHS = ("<>", "<mailer-daemon>", "mailer-daemon", "<#@[]>")
_FOR = re.compile(r"\bfor[ \t]+<?([^\s<>;]{1,200}@[^\s<>;]{1,253})>?", re.IGNORECASE)
_WHERE_SENT = ("x-envelope-to", "x-rcpt-to", "envelope-to", "x-original-to", "delivered-to",
               "apparently-to", "x-actual-recipient")  # fmt: skip


def read_report(raw: bytes) -> Report:
    """What the mail `raw` (any bytes, any line ends) reports. Never raises; bounded work."""
    parts = take_apart(raw)
    complaint = feedback.feedback_of(parts)
    if complaint is not None:
        return _complaint(parts, complaint)
    challenge = automatic.is_challenge(parts)
    groups = [group for text in parts.status for group in delivery_status.groups_of(text)]
    recipients = delivery_status.recipients_of(groups)
    if not recipients and _has_status_fields(parts.notice):
        groups = list(delivery_status.groups_of(parts.notice))
        recipients = delivery_status.recipients_of(groups)
    if challenge:
        return _report(parts, Kind.CHALLENGE, challenge, recipients)
    if recipients:
        return _standard(parts, recipients, groups)
    return _in_words(parts)


def _has_status_fields(text: str) -> bool:
    lower = text.lower()
    return "final-recipient:" in lower or (
        "original-recipient:" in lower and ("action:" in lower or "diagnostic-code:" in lower)
    )


# The kinds ----------------------------------------------------------------------------------


def _complaint(parts: Parts, complaint: Feedback) -> Report:
    who = feedback.complainers_of(complaint, parts)
    if complaint.type in ("auth-failure", "dmarc") and not any(one.address for one in who):
        who = []
    report = _report(parts, Kind.COMPLAINT, "feedback report", who)
    return replace(report, feedback=complaint)


def _standard(
    parts: Parts, recipients: list[Recipient], groups: list[delivery_status.Group]
) -> Report:
    """A delivery status (RFC 3464): its actions say what it is."""
    mta = next((group["reporting-mta"] for group in groups if "reporting-mta" in group), "")
    disposition = next((group["disposition"] for group in groups if "disposition" in group), "")
    if disposition:
        return _disposition(parts, recipients, disposition)
    whole = f"{parts.header('subject')}\n{parts.notice}"
    only = len(recipients) == 1
    finished = [_finish(recipient, parts, only) for recipient in recipients]
    actions = {recipient.action for recipient in finished}
    if "failed" in actions or actions == {""}:
        kind = Kind.BOUNCE
        if actions == {""} and notice.says_delayed(whole):
            kind = Kind.DELAY
    elif "delayed" in actions:
        kind = Kind.DELAY
    else:
        kind = Kind.DELIVERED
    return _report(parts, kind, "delivery status", finished, delivery_status.untyped(mta))


def _disposition(parts: Parts, recipients: list[Recipient], disposition: str) -> Report:
    """A disposition notification (RFC 8098): a receipt, or a filter's refusal."""
    words = disposition.lower()
    refused = "automatic-action" in words and ("deleted" in words or "denied" in words)
    subject = words_of(parts.header("subject"))
    if refused and (notice.says_failed(words_of(parts.notice)) or _SUBJECTS.any_in(subject)):
        finished = [replace(_finish(one, parts, True), action="failed") for one in recipients]
        return _report(parts, Kind.BOUNCE, "disposition", finished)
    return _report(parts, Kind.DELIVERED, "disposition", recipients)


def _in_words(parts: Parts) -> Report:
    """A notice without machine-read recipients, an automatic answer, or an ordinary mail."""
    reason = _is_notice(parts)
    if reason:
        named = _named(parts)
        if named or reason != "subject":
            whole = f"{parts.header('subject')}\n{parts.notice}"
            delayed = notice.says_delayed(whole)
            action = "delayed" if delayed else "failed"
            only = len(named) == 1
            finished = [_finish(replace(one, action=action), parts, only) for one in named]
            return _report(parts, Kind.DELAY if delayed else Kind.BOUNCE, reason, finished)
    automatically = automatic.is_auto_reply(parts)
    if automatically or _answers_from_nowhere(parts):
        return _report(parts, Kind.AUTO_REPLY, automatically or "null return-path", ())
    return _report(parts, Kind.NONE, "", ())


def _answers_from_nowhere(parts: Parts) -> bool:
    """A mail with the null return-path that reports nothing: an answer (RFC 3834 section 3.3)."""
    path = (parts.root.field("return-path") or "-").strip().lower()
    return path == "<>" and parts.header("auto-submitted").lower() in ("", "auto-replied")


# Is it a notice? ----------------------------------------------------------------------------


def _is_notice(parts: Parts) -> str:
    """By which evidence a mail is a notice of a mail system; empty when it is none.

    A person can write every sentence that a server writes, so words alone are not enough.
    """
    root = parts.root
    if "x-failed-recipients" in {name.lower() for name, _ in root.fields}:
        return "x-failed-recipients"
    kind = root.content_type
    if kind.value == "multipart/report" and kind.parameters.get("report-type", "").lower() in (
        "delivery-status",
        "disposition-notification",
        "",
    ):
        if parts.status or parts.notice.strip() or parts.has_returned:
            return "multipart/report"
    subject = _SUBJECTS.any_in(words_of(parts.header("subject")))
    sender = _from_mail_system(parts)
    path = (root.field("return-path") or "-").strip().lower()
    nobody = path in _NULL_PATHS
    if not (subject or sender or nobody):
        return ""
    text = parts.notice if parts.notice.strip() else parts.html
    failed = notice.says_failed(words_of(text[:_NOTICE_CHARACTERS]))
    if sender and (failed or subject or (nobody and parts.has_returned)):
        return "sender"
    if nobody and failed and not _replies_to_a_person(parts):
        return "null return-path"
    if subject and failed and (parts.has_returned or parts.returned or _machine_made(parts)):
        return "subject"
    return ""


def _replies_to_a_person(parts: Parts) -> bool:
    return bool(automatic.is_auto_reply(parts)) and not parts.has_returned and not _SUBJECTS.any_in(
        words_of(parts.header("subject"))
    ) and not next(iter(notice.recipients_in(parts.notice, _ours(parts))), None)  # fmt: skip


def _machine_made(parts: Parts) -> bool:
    """Whether a mail says that a program made it, and answers nothing."""
    submitted = parts.header("auto-submitted").lower()
    return (
        submitted.startswith(("auto-replied", "auto-generated"))
        or parts.root.field("message-id") is None
        or parts.root.field("x-autogenerated") is not None
        or parts.root.field("in-reply-to") is None
        and bool(notice.recipients_in(parts.notice, _ours(parts)))
    )


def _from_mail_system(parts: Parts) -> bool:
    said = parts.root.field("from") or ""
    if not said.strip() or said.strip() == "<>":
        return True
    for mailbox in parse_addresses(said)[:3]:
        local = mailbox.address.rpartition("@")[0] or mailbox.address
        if _MAIL_SYSTEM_LOCAL_PART.match(local):
            return True
        if mailbox.name and _MAIL_SYSTEMS.any_in(words_of(mailbox.name)):
            return True
    return "<>" in said


# Who did not get it -------------------------------------------------------------------------


def _named(parts: Parts) -> list[Recipient]:
    """The failed recipients of a notice in words."""
    listed = parts.header("x-failed-recipients")
    if listed:
        return [
            Recipient(one.strip(" <>")[:320]) for one in listed.split(",")[:100] if "@" in one
        ]
    ours = _ours(parts)
    named = notice.recipients_in(parts.notice, ours)
    if not named and parts.html:
        named = notice.recipients_in(parts.html, ours)
    if not named:  # who wrote to himself is named first on a line of his own
        named = notice.recipients_in(parts.notice, (), worst=1)
    if named:
        return [Recipient(one.address, notice=one.section) for one in named]
    subject = notice.recipients_in(parts.header("subject"), ours)
    if subject:
        return [Recipient(one.address) for one in subject]
    return [Recipient(address) for address in _sent_to(parts.returned)]


def _ours(parts: Parts) -> frozenset[str]:
    """Addresses that a notice mentions without meaning a failed recipient, in lower case."""
    found = {
        mailbox.address.lower()
        for name in ("from", "to", "reply-to", "return-path", "sender", "errors-to")
        for mailbox in addresses(parts.root.field(name) or "")[:20]
    }
    for name, value in parts.returned:
        if name.lower() in ("from", "return-path", "sender", "reply-to", "errors-to"):
            found.update(mailbox.address.lower() for mailbox in addresses(value)[:5])
    return frozenset(found)


def _sent_to(fields: Iterable[tuple[str, str]]) -> list[str]:
    """To whom a returned mail was going: its envelope as far as headers show it, else its To."""
    by_name: dict[str, str] = {}
    for name, value in fields:
        by_name.setdefault(name.lower(), value)
        if name.lower() == "received" and "for" not in by_name:
            found = _FOR.search(value)
            if found is not None:
                by_name["for"] = found[1]
    for name in (*_WHERE_SENT, "to", "for", "cc"):
        value = by_name.get(name, "")
        there = [one.address[:320] for one in addresses(value) if "@" in one.address]
        if there:
            return there[:100]
    return []


# One recipient, whole -----------------------------------------------------------------------


def _finish(recipient: Recipient, parts: Parts, only: bool) -> Recipient:
    """`recipient` with what the words say of it: codes, step and diagnostic."""
    section = recipient.notice or notice.section_about(parts.notice, recipient.address)
    if not section and recipient.original_recipient:
        section = notice.section_about(parts.notice, recipient.original_recipient)
    if only and not notice.what_was_said(section):
        section = parts.notice[:_NOTICE_CHARACTERS]
    diagnostic = recipient.diagnostic or notice.what_was_said(section)
    words = words_of(f"{diagnostic}\n{section}")
    return replace(
        recipient,
        status=_status(recipient.status, diagnostic, section),
        reply_code=find_reply_code(diagnostic) or find_reply_code(section),
        diagnostic=readable(diagnostic)[:4_000],
        notice=section[:4_000],
        stage=find_stage(section, words),
    )


def _status(given: str, diagnostic: str, section: str) -> str:
    """The most telling of the enhanced codes: the field's, the server's, the text's."""
    candidates = [find_status(diagnostic), given, find_status(section)]
    for candidate in candidates:
        if is_specific(candidate):
            return candidate
    return next((candidate for candidate in candidates if candidate), "")


def _report(
    parts: Parts,
    kind: Kind,
    reason: str,
    recipients: Iterable[Recipient],
    reporting_mta: str = "",
) -> Report:
    returned = _returned(parts.returned)
    return Report(
        kind=kind,
        reason=reason,
        recipients=tuple(recipients),
        returned=returned,
        return_paths=tuple(dict.fromkeys(_return_paths(parts, returned)))[:_RETURN_PATHS],
        reporting_mta=reporting_mta[:255],
        subject=parts.header("subject")[:_SUBJECT_CHARACTERS],
        notice=parts.notice[:_NOTICE_CHARACTERS] if parts.notice.strip() else
        parts.html[:_NOTICE_CHARACTERS],
    )  # fmt: skip


def _returned(fields: list[tuple[str, str]]) -> Returned:
    by_name = {name.lower(): value for name, value in reversed(fields)}
    sender = next(
        (
            mailbox.address
            for name in ("return-path", "from")
            for mailbox in addresses(by_name.get(name, ""))[:1]
            if "@" in mailbox.address
        ),
        "",
    )
    return Returned(
        message_id=message_id(by_name.get("message-id", "")),
        subject=readable(by_name.get("subject", ""))[:_SUBJECT_CHARACTERS],
        sender=sender[:320],
        recipients=tuple(_sent_to(fields)),
    )


def _return_paths(parts: Parts, returned: Returned) -> Iterator[str]:
    for name, value in parts.root.fields:
        if name.lower() in ("to", "delivered-to", "x-original-to", "envelope-to", "x-envelope-to"):
            yield from (one.address[:320] for one in addresses(value)[:5] if "@" in one.address)
    if returned.sender:
        yield returned.sender
    for name, value in parts.returned:
        if name.lower() in ("return-path", "x-envelope-from", "errors-to", "sender"):
            yield from (one.address[:320] for one in addresses(value)[:2] if "@" in one.address)
