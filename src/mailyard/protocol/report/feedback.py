"""Complaints: the Abuse Reporting Format (RFC 5965, 6591) and the feedback loops before it."""

import re

from mailyard.protocol.report.delivery_status import address_of
from mailyard.protocol.report.parts import Parts
from mailyard.protocol.report.values import Feedback, Recipient

_FIELDS = 500  # of one report
_VALUE_CHARACTERS = 4_000
_FIELD = re.compile(r"^([A-Za-z][A-Za-z0-9-]{0,60})[ \t]*:[ \t]*(.*)$")
_HOTMAIL_SUBJECT = re.compile(r"^\s*complaint about message from\b", re.IGNORECASE)
# RFC 5965 section 3.2: whose mailbox it was, when the loop does not hide it.
_RECIPIENT_FIELDS = ("original-rcpt-to", "removal-recipient", "redacted-address")
_ORIGINAL_RECIPIENT = "x-hmxmroriginalrecipient"  # of Hotmail's loop, in the mail itself
_COMPLAINTS = 100


def feedback_of(parts: Parts) -> Feedback | None:
    """The complaint that a mail is, or None."""
    for text in parts.feedback:
        fields = fields_of(text)
        kind = next((value for name, value in fields if name == "feedback-type"), "")
        return Feedback(_type(kind), tuple(fields))
    if parts.has_returned and (
        any(name.lower() == _ORIGINAL_RECIPIENT for name, _ in parts.returned)
        or _HOTMAIL_SUBJECT.match(parts.header("subject"))
    ):
        return Feedback("abuse")
    if _says_feedback_report(parts):
        return Feedback("abuse")
    return None


def _says_feedback_report(parts: Parts) -> bool:
    """A report by its type whose machine-read part is missing or unreadable."""
    kind = parts.root.content_type
    said = kind.parameters.get("report-type", "").lower()
    return kind.value == "multipart/report" and said == "feedback-report" and parts.has_returned


def _type(value: str) -> str:
    """`Abuse; x` is `abuse`; a report without a type is of abuse (RFC 5965 section 7.3)."""
    word = value.lower().split(";")[0].strip()
    return word[:40] or "abuse"


def fields_of(text: str) -> list[tuple[str, str]]:
    """(lower-case name, value with folds undone) of every field, repeated ones too, in order."""
    fields: list[tuple[str, str]] = []
    for line in text.split("\n"):
        found = _FIELD.match(line)
        if found is not None:
            if len(fields) >= _FIELDS:
                break
            fields.append((found[1].lower(), found[2].strip()[:_VALUE_CHARACTERS]))
        elif line[:1] in (" ", "\t") and fields and line.strip():
            name, value = fields[-1]
            if len(value) < _VALUE_CHARACTERS:
                fields[-1] = (name, f"{value} {line.strip()}")
    return fields


def complainers_of(feedback: Feedback, parts: Parts) -> list[Recipient]:
    """Whose complaint it is, in order, each once: the fields name them, else the mail's headers."""
    found: dict[str, Recipient] = {}
    for wanted in _RECIPIENT_FIELDS:
        for name, value in feedback.fields:
            address = address_of(value) if name == wanted else ""
            if "@" in address and len(found) < _COMPLAINTS:
                found.setdefault(address.lower(), Recipient(address))
    if not found:
        for wanted in (_ORIGINAL_RECIPIENT, "x-rcpt-to", "delivered-to", "to"):
            value = next((value for name, value in parts.returned if name.lower() == wanted), "")
            address = address_of(value) if value else ""
            if "@" in address:
                return [Recipient(address)]
    return list(found.values())
