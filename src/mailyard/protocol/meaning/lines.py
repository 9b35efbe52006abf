"""The lines of a mail's text by what they are: text, quote, attribution, head of a quoted mail, …

An attribution ("On … wrote:") is known by its verb and by a date or an address, in many languages,
and may be broken over several lines. The head of a quoted mail is a run of its fields.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from mailyard.protocol.meaning.day import month_of
from mailyard.protocol.meaning.words import TABLES, fold

_TABLE = TABLES["reply"]


class Kind(Enum):
    """What a line is."""

    EMPTY = "empty"
    TEXT = "text"
    QUOTE = "quote"  # begins with > or |
    NAMED_QUOTE = "named quote"  # begins with a name and >
    MARKER = "marker"  # an attribution, the head of a quoted mail
    DELIMITER = "delimiter"
    DEVICE = "device"  # what a phone or a program writes underneath


@dataclass(slots=True)
class Line:
    """A line without its end, where it stands in the text. `original`: its marker is no
    attribution but the head of a whole mail."""

    text: str
    start: int
    kind: Kind
    original: bool = False
    marker: int = 0  # the number of the marker that it belongs to

    @property
    def end(self) -> int:
        return self.start + len(self.text)


_LINES = 5_000
_ATTRIBUTION_LINES = 6
_ATTRIBUTION_CHARACTERS = 400
_HEAD_GAP = 1

_QUOTE = re.compile(r"\s{0,3}>|\s?\|(?:\s|$)")
_NAMED_QUOTE = re.compile(r"[A-Za-z]{1,10}>(?:\s|$)")
_DELIMITER = re.compile(r"\s*(?:[-_=*~#+—–]{2,}|[ᐧ—])\s*$")
_FENCE = re.compile(r"\s{0,3}```")
_WORDS = re.compile(r"[^\W_]+")
_FIELD = re.compile(r"[\s>*_]*([^\W\d_][^:：\n]{0,24}?)[\s*_]*[:：][\s*_]*(.*)")
_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")
_DATED = re.compile(
    r"\d{1,4}[./-]\d{1,2}[./-]\d{2,4}|(?<!\d)(?:19|20)\d\d(?!\d)|\d{1,2}[:.h]\d{2}(?!\d)"
)
_DAY_AND_MONTH = re.compile(
    r"\d{1,2}\.? (?:de )?([^\W\d_]{3,12})|([^\W\d_]{3,12})\.? \d{1,2}(?!\d)"
)
_VERBS = "|".join(
    sorted((re.escape(fold(one)) for one in _TABLE["wrote"] if len(one) > 2), key=len, reverse=True)
)
_WROTE = re.compile(
    rf"(?:^|(?<=[\s>\"'，,)\]0-9]))(?:{_VERBS})(?=$|[\s:：)(—<-])|写道|寫道|のメール|작성|님이"
)
_BARE_DATE = re.compile(
    r"(?:19|20)\d\d[-/.]\d{1,2}[-/.]\d{1,2}(?:,? \d{1,2}:\d{2}(?::\d{2})?)?"
    r"(?: (?:gmt|utc)\s?[+-]?\d{0,2}:?\d{0,2})?,? (?P<who>[^\d:]\S.{0,120})$"
)
# "30.09.2017, 18.30, "Name" <address>:" and "ср, 30 апр. 2025 г. в 15:19, Name <address>:"
_DATE_TIME_NAME = re.compile(
    r"[^\W\d_]{0,12}[.,]? ?\d{1,4}[^<>@]{4,40}?\d{1,2}[:.h]\d{2},? [^<>]{0,80}<[^<>\s]+@[^<>\s]+>:$"
)
_ZONE = re.compile(r"(?:gmt|utc)\s?[+-]\d")
_FROM = frozenset(map(fold, _TABLE["head_from"]))
_OTHER = frozenset(map(fold, _TABLE["head_other"])) | _FROM
_ORIGINAL = frozenset(" ".join(_WORDS.findall(fold(one))) for one in _TABLE["original"])
_DEVICE = tuple(fold(one) for one in _TABLE["device"])
_DEVICE_ENDS = ("gesendet", "gesendet.", "傳送", "送信", "보냄", "gonderildi")
_BRACKETS = re.compile(r"[\[\]()<>]")
_STARTS = re.compile(r"^[\s>*_(<\[\"'-]+")


def lines_of(text: str) -> list[Line]:
    """The lines, each with its kind; what lies behind the first `_LINES` is left out."""
    lines: list[Line] = []
    start = 0
    for raw in text.split("\n", _LINES)[:_LINES]:
        lines.append(Line(raw, start, Kind.TEXT))
        start += len(raw) + 1
    fenced = False
    for line in lines:
        if _FENCE.match(line.text):
            fenced = not fenced
        elif not fenced:
            line.kind = _plain_kind(line.text)
    _mark(lines)
    return lines


def _plain_kind(text: str) -> Kind:
    if not text.strip():
        return Kind.EMPTY
    if _QUOTE.match(text):
        return Kind.QUOTE
    if _NAMED_QUOTE.match(text):
        return Kind.NAMED_QUOTE
    if _DELIMITER.match(text):
        return Kind.DELIMITER
    return Kind.DEVICE if _is_device(text) else Kind.TEXT


def _is_device(text: str) -> bool:
    """A short line that begins as devices do: `Sent from my …`, `Von meinem … gesendet`."""
    if len(text) > 200:
        return False
    said = _BRACKETS.sub("", fold(_STARTS.sub("", text))).rstrip(". ")
    if said.startswith(_DEVICE):
        # A sentence that goes on is one of the writer's own.
        first = re.split(r"[.!?,]\s", said)[0]
        return len(first.split()) <= 12
    return said.endswith(_DEVICE_ENDS) and any(
        part in said for part in ("iphone", "ipad", "android", "von meinem", "mobil")
    )


def _mark(lines: list[Line]) -> None:
    """Find the markers, which may take several lines."""
    number = 0
    index = 0
    while index < len(lines):
        line = lines[index]
        length, original = 0, False
        if line.kind in (Kind.TEXT, Kind.DELIMITER):
            length = _original(lines, index) or _head(lines, index)
            original = length > 0
            length = length or _attribution(lines, index)
        if length:
            number += 1
            for one in lines[index : index + length]:
                one.kind, one.original, one.marker = Kind.MARKER, original, number
        index += length or 1


def _original(lines: list[Line], index: int) -> int:
    """`-----Original Message-----` with the head that follows it."""
    text = lines[index].text
    if len(text) > 120 or not _is_original(text):
        return 0
    following = index + 1
    while following < len(lines) and lines[following].kind is Kind.EMPTY and following < index + 4:
        following += 1
    return following - index + _head(lines, following) if _head(lines, following) else 1


def _is_original(text: str) -> bool:
    bare = text.strip()
    said = " ".join(_WORDS.findall(fold(bare.strip("-_*=>#|: \t"))))
    return said in _ORIGINAL and (bare[:1] in "-_*=>" or bare.endswith(":"))


def _head(lines: list[Line], index: int) -> int:
    """How many lines from `index` on are fields of a quoted mail's head; 0 when they are none.

    Who wrote it must be among at least three of them. A field may be folded.
    """
    names: set[str] = set()
    last = index
    for place in range(index, min(len(lines), index + 14)):
        line = lines[place]
        name = _field_name(line.text)
        if name is not None:
            names.add(name)
            last = place
        elif (
            place == index
            or (line.kind is Kind.EMPTY and place - last > 1)
            or place - last > _HEAD_GAP
        ):
            break
    return last - index + 1 if len(names) >= 3 and names & _FROM else 0


def _field_name(text: str) -> str | None:
    found = _FIELD.match(text) if len(text) < 2000 else None
    if found is None:
        return None
    name = fold(found[1]).strip()
    return name if name in _OTHER else None


def _attribution(lines: list[Line], index: int) -> int:
    """How many lines from `index` on are an attribution; 0 when they are none."""
    first = lines[index].text
    if not _may_begin(first):
        return 0
    joined, taken = "", 0
    for line in lines[index : index + _ATTRIBUTION_LINES]:
        taken += 1
        if (
            line.kind is Kind.QUOTE
            and taken > 1
            and "wrote" not in line.text
            and not line.text.strip().startswith(">:")
        ):
            bare = line.text.strip().lstrip(">").strip()
            if not _WROTE.search(fold(bare)) or len(bare) > 40:
                break
        joined = f"{joined} {line.text.strip()}".strip()
        if len(joined) > _ATTRIBUTION_CHARACTERS:
            break
        if line.kind is not Kind.EMPTY and _says_who_wrote(fold(joined)):
            # The end of its verb may stand in the next line: "het volgende geschreven:".
            follows = lines[index + taken].text.strip() if index + taken < len(lines) else ""
            if (
                not joined.endswith((":", "：", "-"))
                and 0 < len(follows) < 60
                and follows.endswith(":")
            ):
                taken += 1
            return taken
        if line.kind is Kind.EMPTY and taken > 1 and not re.search(r"\d|<", joined[-40:]):
            break
    return 0


def _may_begin(text: str) -> bool:
    """Whether a line can be the first of an attribution: a date is in it, or an address."""
    return len(text) <= _ATTRIBUTION_CHARACTERS and (
        _ADDRESS.search(text) is not None or text.rstrip().endswith("<") or _is_dated(text)
    )


def _is_dated(text: str) -> bool:
    if not any(map(str.isdigit, text)):
        return False
    if _DATED.search(text):
        return True
    return any(month_of(one or other) for one, other in _DAY_AND_MONTH.findall(text))


def _says_who_wrote(said: str) -> bool:
    ends = said.rstrip("- *_")
    bare = _BARE_DATE.match(said)
    if (
        bare is not None
        and (_ZONE.search(said) or _ADDRESS.search(said))
        and _WROTE.search(said) is None
    ):
        return ends.endswith((">:", ">", ":")) or (
            _ZONE.search(said) is not None and len(bare["who"]) < 60 and "<" not in said
        )
    if ends.endswith(">:") and _DATE_TIME_NAME.match(said):
        return True
    verbs = list(_WROTE.finditer(said))
    if not verbs:
        return False
    verb = verbs[-1]
    if not (ends.endswith((":", "：")) or verb.end() >= len(ends) or said.endswith("--")):
        return False
    before = said[: verb.start()]
    whole = said if ends.endswith((":", "：")) else before
    return _is_dated(whole) or _ADDRESS.search(whole) is not None


def runs(lines: list[Line]) -> Iterator[tuple[int, int]]:
    """(first, behind the last) of each marker."""
    index = 0
    while index < len(lines):
        if lines[index].kind is Kind.MARKER:
            end = index + 1
            while end < len(lines) and lines[end].marker == lines[index].marker:
                end += 1
            yield index, end
            index = end
        else:
            index += 1
