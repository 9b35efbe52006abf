"""Where a found mail says what was looked for: a few words of it, marked, as safe HTML.

The text is read from the mail's bytes again (the index keeps none), for the mails of one page and
of large ones only the beginning.
"""

import asyncio
import re
from collections.abc import Sequence
from html import escape
from uuid import UUID

import asyncpg

from mailyard.core import limits
from mailyard.mailbox.search.grams import UNBROKEN, folded
from mailyard.mailbox.search.tree import Node, Part, matches
from mailyard.protocol.mime.message import parse
from mailyard.protocol.mime.text import text_of
from mailyard.storage.database import Database
from mailyard.storage.queries import load
from mailyard.storage.raw_mail import IN_ROWS, RawMail

QUERIES = load("search")

# Private characters: no mail's text keeps one, and PostgreSQL takes them as they are.
START, STOP = "\ue000", "\ue001"
# PostgreSQL leaves out what begins like a tag. Whether such a character is a letter of the word
# before it is the locale's, hence the space.
LESS = " \ue002"
_PRIVATE = re.compile("[\ue000-\ue002]")
_SPACE = re.compile(r"\s+")
_TEXT_CHARACTERS = 8_000  # of a mail that its places are looked for in
_RAW_BYTES = 64 * limits.KIB
_AROUND = 80  # characters before and behind a place, where we choose it
_SNIPPET_CHARACTERS = 400
_BETWEEN_PAUSES = 5


class Snippets:
    """Makes them, a page at a time."""

    def __init__(self, *, database: Database, raw_mail: RawMail = IN_ROWS) -> None:
        self._database = database
        self._raw_mail = raw_mail

    async def of(
        self, workspace_id: UUID, rows: Sequence[asyncpg.Record], node: Node, words: str | None
    ) -> list[tuple[str, str]]:
        """For each line its snippet and its subject, as HTML."""
        if not rows:
            return []
        texts = await self._texts(workspace_id, rows)
        subjects = [_PRIVATE.sub("", row["subject"]) for row in rows]
        languages = [row["language"] for row in rows]
        marked = await self._marked(texts, subjects, languages, words)
        parts = _parts(node)
        shown = [_by_parts(text, parts) for text in marked]
        count = len(rows)
        return [
            (_html(_around(snippet, whole)), _html(subject))
            for snippet, whole, subject in zip(shown[:count], texts, shown[count:], strict=True)
        ]

    async def _texts(self, workspace_id: UUID, rows: Sequence[asyncpg.Record]) -> list[str]:
        ids = list({row["message_id"] for row in rows})
        classes = sorted({row["message_retention_days"] for row in rows})
        found = await self._database.fetch(
            QUERIES.load, workspace_id, ids, classes, min(ids), max(ids), _RAW_BYTES
        )
        # What cannot be read now is shown by its preview, as what is gone.
        filled, _ = await self._raw_mail.filled_or_away(found, _RAW_BYTES)
        raw = {row["id"]: row["raw"] for row in filled}
        texts = []
        for count, row in enumerate(rows, 1):
            content = raw.get(row["message_id"])
            text = row["preview"] if content is None else text_of(parse(content)).text
            texts.append(_SPACE.sub(" ", _PRIVATE.sub("", text[:_TEXT_CHARACTERS])).strip())
            if count % _BETWEEN_PAUSES == 0:
                await asyncio.sleep(0)
        return texts

    async def _marked(
        self, texts: list[str], subjects: list[str], languages: list[str], words: str | None
    ) -> list[str]:
        """Of each text what shows the words best, then the subjects; the words between marks."""
        shown = [*texts, *subjects]
        if words is None:
            return shown
        rows = await self._database.fetch(
            QUERIES.headlines,
            languages * 2,
            [text.replace("<", LESS) for text in shown],
            words,
            START,
            STOP,
            [False] * len(texts) + [True] * len(subjects),
        )
        found = sorted(rows, key=lambda row: row["nth"])
        return [row["headline"].replace(LESS, "<") for row in found]


def _parts(node: Node) -> list[str]:
    """What is looked for within words: parts, and what has no word breaks."""
    found = []
    for one in matches(node):
        if isinstance(one, Part):
            found.append(one.text)
        else:
            found += UNBROKEN.findall(folded(one.text))
    return found


def _by_parts(text: str, parts: Sequence[str]) -> str:
    """Mark what PostgreSQL's words cannot."""
    if not parts:
        return text
    wanted = re.compile("|".join(re.escape(part) for part in parts), re.IGNORECASE)
    return wanted.sub(lambda found: f"{START}{found[0]}{STOP}", text)


def _around(marked: str, whole: str) -> str:
    """The first marked place with what stands around it, or the beginning."""
    if START not in marked:
        return whole[:_SNIPPET_CHARACTERS]
    if len(marked) <= _SNIPPET_CHARACTERS:
        return marked
    place = marked.index(START)
    begin = max(0, place - _AROUND)
    piece = marked[begin : place + _SNIPPET_CHARACTERS]
    if piece.rfind(START) > piece.rfind(STOP):
        piece += STOP
    return ("… " if begin else "") + piece


def _html(text: str) -> str:
    """Escaped, the marks as elements; those that do not pair are nothing."""
    out, is_open = [], False
    for piece in re.split(f"([{START}{STOP}])", text):
        if piece == START:
            out.append("" if is_open else "<mark>")
            is_open = True
        elif piece == STOP:
            out.append("</mark>" if is_open else "")
            is_open = False
        else:
            out.append(escape(piece))
    return "".join(out) + ("</mark>" if is_open else "")
