"""Which of a workspace's events somebody wants: event streams, WebSockets and webhooks ask alike.

An event is wanted when its kind is among the kinds, its inbox among the inboxes and each condition
holds; what is not given asks nothing. A condition names a field of the event and texts of which one
must fit: the whole value, in any case, where `*` stands for anything.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from mailyard.core.errors import InvalidInput
from mailyard.core.ids import INBOX, parse_type_id

KINDS_MAX = 20
INBOXES_MAX = 100
CONDITIONS_MAX = 10
TEXT_CHARACTERS = 200

_KIND = re.compile(r"[a-z]+(?:[._][a-z]+)*")
_FIELD = re.compile(r"[a-z]+(?:_[a-z]+)*")


class EventFilter(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What is wanted. `where`: a field's name and the texts of which one must fit."""

    kinds: tuple[str, ...] = ()
    inboxes: tuple[str, ...] = ()
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def wants(self, kind: str, item: Mapping[str, Any]) -> bool:
        """Whether the event `item` of `kind` is wanted."""
        if self.kinds and kind not in self.kinds:
            return False
        if self.inboxes and item.get("inbox_id") not in self.inboxes:
            return False
        return all(_fits(item.get(field), texts) for field, texts in self.where)


EVERYTHING = EventFilter()


def make_filter(
    kinds: Sequence[str] = (),
    inboxes: Sequence[str] = (),
    where: Mapping[str, Sequence[str]] | None = None,
) -> EventFilter:
    """A checked filter. Raises InvalidInput naming the field."""
    where = where or {}
    if len(kinds) > KINDS_MAX or not all(_KIND.fullmatch(kind) for kind in kinds):
        raise InvalidInput(f"expected up to {KINDS_MAX} kinds like message.received", field="kinds")
    if len(inboxes) > INBOXES_MAX:
        raise InvalidInput(f"at most {INBOXES_MAX} inboxes", field="inboxes")
    for inbox in inboxes:
        parse_type_id(INBOX, inbox, "inboxes")
    if sum(map(len, where.values())) > CONDITIONS_MAX:
        raise InvalidInput(f"at most {CONDITIONS_MAX} conditions", field="where")
    for field, texts in where.items():
        if not _FIELD.fullmatch(field) or len(field) > TEXT_CHARACTERS:
            raise InvalidInput(
                f"{field[:60]!r} is no field of an event; name one like subject", field="where"
            )
        if not texts or any(not text or len(text) > TEXT_CHARACTERS for text in texts):
            raise InvalidInput(
                f"{field}: expected a text of 1 to {TEXT_CHARACTERS} characters", field="where"
            )
    return EventFilter(
        tuple(dict.fromkeys(kinds)),
        tuple(dict.fromkeys(inboxes)),
        tuple((field, tuple(texts)) for field, texts in where.items()),
    )


def parse_where(texts: Sequence[str]) -> dict[str, list[str]]:
    """Conditions as `field:text`; those of one field are alternatives. Raises InvalidInput."""
    where: dict[str, list[str]] = {}
    for text in texts:
        field, colon, wanted = text.partition(":")
        if not colon:
            raise InvalidInput(
                f"expected field:text, as in state:bounced, got {text[:60]!r}", field="where"
            )
        where.setdefault(field.strip(), []).append(wanted.strip())
    return where


def _fits(value: Any, texts: Sequence[str]) -> bool:
    if value is None or isinstance(value, (dict, list)):
        return False
    if isinstance(value, bool):
        value = "true" if value else "false"
    shown = str(value).casefold()
    return any(_matches(_pieces(text), shown) for text in texts)


@lru_cache(maxsize=4096)
def _pieces(text: str) -> tuple[str, ...]:
    """What stands between the `*` of a text."""
    return tuple(text.casefold().split("*"))


def _matches(pieces: Sequence[str], shown: str) -> bool:
    """The first piece begins the value, the last ends it, the others follow one another between.

    Each is taken at its first place, so nothing is ever tried twice.
    """
    if len(pieces) == 1:
        return shown == pieces[0]
    first, *inner, last = pieces
    if not shown.startswith(first) or len(shown) < len(first) + len(last):
        return False
    at, end = len(first), len(shown) - len(last)
    for piece in inner:
        at = shown.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return shown.endswith(last)
