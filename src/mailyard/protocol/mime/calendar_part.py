"""Invitations: what a calendar part says of its events (RFC 5545, RFC 5546). No raise; linear."""

import re
from typing import NamedTuple

from mailyard.core.limits import KIB

_EVENTS = 20  # of one part
_CHARACTERS = 512 * KIB
_VALUE_CHARACTERS = 4 * KIB
_FOLD = re.compile(r"\n[ \t]")
_LINE = re.compile(r'^([A-Za-z-]++)((?:;(?:[^":;\n]++|"[^"\n]*+")*+)*+):(.*+)', re.MULTILINE)
_ZONE = re.compile(r';TZID="?([^";:]+)', re.IGNORECASE)
_ESCAPED = re.compile(r"\\([\\;,nN])")
_KEPT = frozenset(("UID", "SUMMARY", "LOCATION", "DTSTART", "DTEND", "ORGANIZER", "STATUS"))


class CalendarEvent(NamedTuple):
    """One event as the part tells of it; empty where it says nothing.

    `method` is what is asked (`REQUEST`, `CANCEL`, `REPLY`); `starts` and `ends` are as written
    (`20260105T120000Z`, or local to `zone`, or a day).
    """

    method: str
    uid: str
    summary: str
    location: str
    starts: str
    ends: str
    zone: str
    organizer: str
    status: str


def events_of(text: str) -> list[CalendarEvent]:
    """The events of a calendar part's text, with `\\n` line ends."""
    text = _FOLD.sub("", text[:_CHARACTERS])
    found: list[CalendarEvent] = []
    method = ""
    inside: dict[str, str] | None = None
    zone = ""
    for line in _LINE.finditer(text):
        name, parameters, value = line[1].upper(), line[2], line[3].strip()
        if name == "METHOD" and inside is None:
            method = value.upper()[:40]
        elif name == "BEGIN" and value.upper() == "VEVENT":
            inside, zone = {}, ""
        elif name == "END" and value.upper() == "VEVENT" and inside is not None:
            found.append(_event(method, inside, zone))
            inside = None
            if len(found) >= _EVENTS:
                break
        elif inside is not None and name in _KEPT and name not in inside:
            inside[name] = value
            if name == "DTSTART" and (named := _ZONE.search(parameters)) is not None:
                zone = named[1]
    return found


def _event(method: str, said: dict[str, str], zone: str) -> CalendarEvent:
    def value(name: str) -> str:
        text = _ESCAPED.sub(_unescape, said.get(name, "")[:_VALUE_CHARACTERS])
        return "".join(c if c.isprintable() else " " for c in text).strip()

    organizer = value("ORGANIZER")
    if organizer[:7].lower() == "mailto:":
        organizer = organizer[7:]
    return CalendarEvent(
        method, value("UID"), value("SUMMARY"), value("LOCATION"), value("DTSTART"),
        value("DTEND"), zone[:100], organizer, value("STATUS"),
    )  # fmt: skip


def _unescape(found: re.Match[str]) -> str:
    return " " if found[1] in "nN" else found[1]
