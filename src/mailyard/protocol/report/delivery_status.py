"""The fields of a delivery status notification (RFC 3464), as strict and as broken as they come.

Servers leave out blank lines between recipients, put one between every two fields, forget the
address type, and write the fields into the text. All of that is read; nothing is raised.
"""

import re
from collections.abc import Iterable, Iterator

from mailyard.protocol.report.codes import find_status
from mailyard.protocol.report.values import Recipient

RECIPIENTS = 1_000  # of one report: a bounce has as many as the mail had in one transaction
_FIELD_CHARACTERS = 4_000
_FIELD = re.compile(r"^[ \t]{0,3}([A-Za-z][A-Za-z-]{1,38})[ \t]*:[ \t]*(.*)$")
_NAMES = frozenset(
    ("final-recipient", "original-recipient", "action", "status", "diagnostic-code", "remote-mta",
     "reporting-mta", "received-from-mta", "arrival-date", "last-attempt-date", "final-log-id",
     "will-retry-until", "dsn-gateway", "original-envelope-id", "x-actual-recipient",
     "x-display-name", "disposition", "original-message-id", "reporting-ua", "failed-recipient",
     "x-original-message-id")
)  # fmt: skip
_TYPED = re.compile(r"^[ \t]*([A-Za-z][\w.-]{0,30})[ \t]*;[ \t]*(.*)$", re.DOTALL)
_ANGLED = re.compile(r"<([^<>]{1,400})>")
_ADDRESS = re.compile(r"[^\s<>\"'(),;:\[\]]{1,200}@[^\s<>\"'(),;:\[\]]{1,255}")
_ACTIONS = ("failed", "delayed", "delivered", "relayed", "expanded")
_ACTION_OF = {
    "failure": "failed", "fail": "failed", "error": "failed", "hard-bounce": "failed",
    "deferred": "delayed", "delay": "delayed", "expired": "delayed", "deliverable": "delivered",
    "success": "delivered", "displayed": "delivered",
}  # fmt: skip

# The fields that are a recipient's (RFC 3464 section 2.3); of the others a message has one each.
_RECIPIENTS = frozenset(
    ("final-recipient", "original-recipient", "action", "status", "diagnostic-code", "remote-mta",
     "x-actual-recipient")
)  # fmt: skip
_MORE_OF_A_REPLY = re.compile(r"^[45]\d\d[ -]")

Group = dict[str, str]


def groups_of(text: str) -> Iterator[Group]:
    """The groups of fields in `text` by lower-case name: the message's, then each recipient's."""
    group: Group = {}
    for name, value in _fields(text):
        if not name:
            if _is_complete(group) or (group and not _RECIPIENTS & group.keys()):
                yield group
                group = {}
        elif _begins_another(group, name):
            yield group
            group = {name: value}
        else:
            group.setdefault(name, value)
    if group:
        yield group


def _is_complete(group: Group) -> bool:
    return "action" in group and _has_recipient(group)


def _has_recipient(group: Group) -> bool:
    return "final-recipient" in group or "original-recipient" in group


def _begins_another(group: Group, name: str) -> bool:
    """Whether the field `name` belongs to the next group: this one has it, or is the message's."""
    if name not in ("final-recipient", "original-recipient", "action"):
        return False
    return name in group


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """(lower-case name, value with its folds undone) of the known fields; `("", "")` is a blank."""
    name, value = "", ""
    for line in text.split("\n"):
        found = _FIELD.match(line)
        known = found[1].lower() if found is not None else ""
        if known in _NAMES and found is not None:
            if name:
                yield name, value.strip()
            name, value = known, found[2]
        elif name and line.strip() and _goes_on(line, name):
            if len(value) < _FIELD_CHARACTERS:
                value = f"{value} {line.strip()}"
        else:
            if name:
                yield name, value.strip()
            name = ""
            if not line.strip():
                yield "", ""
    if name:
        yield name, value.strip()


def _goes_on(line: str, name: str) -> bool:
    """Whether a line belongs to the field before it: folded, or the next line of a reply."""
    if line[0] in " \t":
        return True
    return name == "diagnostic-code" and _MORE_OF_A_REPLY.match(line) is not None


def recipients_of(groups: Iterable[Group]) -> list[Recipient]:
    """The recipients of a delivery status, in order, each once."""
    found: dict[tuple[str, str], Recipient] = {}
    for group in groups:
        if not _has_recipient(group):
            continue
        recipient = _recipient(group)
        if recipient.address and len(found) < RECIPIENTS:
            found.setdefault((recipient.address.lower(), recipient.diagnostic), recipient)
    return list(found.values())


def _recipient(group: Group) -> Recipient:
    final = address_of(group.get("final-recipient", ""))
    original = address_of(group.get("original-recipient", ""))
    if "." not in final.rpartition("@")[2]:  # a name inside the other system
        actual = address_of(group.get("x-actual-recipient", ""))
        final = next((one for one in (original, actual) if "@" in one), final)
    status = group.get("status", "")
    diagnostic = _diagnostic(group.get("diagnostic-code", ""))
    if not diagnostic and "(" in status:  # `4.0.0 (example.net: host name lookup failure)`
        diagnostic = status.partition("(")[2].rstrip(") ")
    return Recipient(
        address=final or original,
        original_recipient=original,
        action=_action(group.get("action", "")),
        status=find_status(status),
        diagnostic=diagnostic[:_FIELD_CHARACTERS],
        remote_mta=untyped(group.get("remote-mta", ""))[:255].strip("<>[] "),
    )


def _diagnostic(value: str) -> str:
    """A diagnostic without its type, unless that says that the value is a program's exit status."""
    return value if value[:6].lower() == "x-unix" else untyped(value)


def untyped(value: str) -> str:
    """A value without its type: `dns; mx.example.org` is `mx.example.org`."""
    found = _TYPED.match(value)
    return (found[2] if found is not None else value).strip()


def address_of(value: str) -> str:
    """The address in a recipient field, without its type, brackets, quotes and comments."""
    text = untyped(value)
    angled = _ANGLED.search(text)
    if angled is not None:
        text = angled[1].strip()
    if not re.search(r"\s", text) and "@" in text:
        return text.strip("\"'<>,;:")[:320]
    found = _ADDRESS.search(text)
    return (found[0] if found is not None else text.strip("\"'<> "))[:320]


def _action(value: str) -> str:
    """One of the five actions, whatever follows it or stands for it; else empty."""
    word = value.lower().split(None, 1)[0].strip(";,.(") if value.strip() else ""
    return word if word in _ACTIONS else _ACTION_OF.get(word, "")
