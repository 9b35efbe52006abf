"""What a model is shown of a mail: what a person would see of it, as data, within a fence.

Hidden text is left out, so is whatever shows nothing or turns the order of letters round. The mail
stands in a JSON string, in which no line begins and no quote ends, between two marks that cannot be
in it; words that servers use as marks of turns are broken apart.
"""

import hmac
import re
import unicodedata
from hashlib import sha256

import msgspec
from msgspec import Struct

from mailyard.protocol.meaning.letter import Letter

BODY_CHARACTERS = 20_000
_HEADER_CHARACTERS = 500
_FILES = 20

_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_TURNS = re.compile(
    r"<(?=\|)|(?<=\|)>|\[(?=/?(?:INST|SYS|SYSTEM)\])|<(?=<?/?(?:SYS|s|system|assistant|user|human)>)"
    r"|<(?=/?(?:start|end)_of_turn)",
    re.IGNORECASE,
)
_NAME = re.compile(r"(?m)^(\s*)((?:system|assistant|human|user|developer)\s*):", re.IGNORECASE)


class Shown(Struct, frozen=True):
    """`words` is all that a person sees of the mail: what an answer may name. `data` is the JSON
    that a model gets, and `mark` the fence around it."""

    words: str
    data: str
    mark: str

    @property
    def content(self) -> bytes:
        """What the result of an analysis depends on."""
        return sha256(self.data.encode()).digest()


def shown_of(letter: Letter) -> Shown:
    """A letter as a model is shown it."""
    sender = letter.from_[0] if letter.from_ else None
    answers_to = letter.reply_to[0].address if letter.reply_to else ""
    fields = {
        "from_name": _line(sender.name if sender else ""),
        "from_address": _line(sender.address if sender else ""),
        "reply_to": _line(answers_to),
        "date": letter.sent_at.isoformat() if letter.sent_at else "",
        "subject": _line(letter.subject),
        "files": [_line(name) for name in letter.files[:_FILES]],
        "text": seen(letter.body[:BODY_CHARACTERS]),
    }
    words = "\n".join(
        [str(fields[name]) for name in ("from_name", "from_address", "reply_to", "date", "subject")]
        + list(fields["files"])
        + [str(fields["text"])]
    )
    broken = {
        name: [_apart(one) for one in value] if isinstance(value, list) else _apart(str(value))
        for name, value in fields.items()
    }
    data = msgspec.json.encode(broken).decode().replace("<", "\\u003c").replace(">", "\\u003e")
    return Shown(words, data, _mark(data))


def seen(text: str) -> str:
    """`text` without what shows nothing."""
    return _CONTROLS.sub(" ", _UNSEEN.sub("", text.replace("\r", "\n")))


def plain(text: str) -> str:
    """`text` as it is compared: one form of each letter, one space between words, no case."""
    return " ".join(unicodedata.normalize("NFKC", seen(text)).casefold().split())


def _line(text: str) -> str:
    return " ".join(seen(text[:_HEADER_CHARACTERS]).split())


def _apart(text: str) -> str:
    return _NAME.sub(r"\1\2 :", _TURNS.sub(lambda found: f"{found[0]} ", text))


def _mark(data: str) -> str:
    """Follows from the whole of the mail, so that no part of it can contain it."""
    return hmac.digest(b"mailyard fence", data.encode(), sha256).hex()[:24]
