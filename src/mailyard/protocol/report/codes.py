"""The codes in the words of a server: reply codes, enhanced status codes, and the SMTP step."""

import re

from mailyard.protocol.report import wording
from mailyard.protocol.report.values import Stage

# RFC 5321 section 4.2.3 and the registry of RFC 5248; 57x is old and widespread.
_REPLY_CODES = frozenset(
    str(code)
    for codes in (
        (421, 422, 431, 432, 441, 442, 446, 447, 449, 450, 451, 452, 453, 454, 455, 458, 459, 471),
        range(500, 506), range(510, 514), (515, 517, 521, 522, 523, 524, 525, 530, 531, 533, 534),
        (535, 538), range(540, 545), (546, 547), range(549, 560), range(570, 575), (577, 590),
    )
    for code in codes
)  # fmt: skip
# RFC 3463 section 2: class, subject (0 to 7), detail. Not part of an IP address or a version.
_STATUS = re.compile(r"(?<![\w.-])#?([245]\.[0-7]\.\d{1,3})(?![\d]|\.\d|\.?[a-zA-Z])")
_STATUS_AFTER_REPLY = re.compile(
    r"(?<![\d.])[45]\d\d[ \-:'\"]{1,4}#?([45]\.[0-7]\.\d{1,3})(?!\.?\d)"
)
_REPLY = re.compile(r"(?<![\w.@/+-])([45]\d\d)(?![\w./@]|-\d)")
_REPLY_FIRST = re.compile(
    r"(?:^|said: ?|answered: ?|replied: ?|returned: ?|response:? ?|error:? ?|smtp; ?|<<<? ?|\d: ?)"
    r"[\s\"'(\[<>*#:-]{0,8}([45]\d\d)(?![\w.@/]|-\d)",
    re.IGNORECASE | re.MULTILINE,
)
_COMMAND = re.compile(
    r"^[ \t]*(?:sent[ \t]*<<<|(?:sent[ \t]*)?(?:>>>|>|C:|=>))[ \t]*"
    r"(EHLO|HELO|LHLO|MAIL|RCPT|DATA|BDAT|STARTTLS|AUTH)\b",
    re.IGNORECASE | re.MULTILINE,
)
_REFUSAL = re.compile(
    r"^[ \t]*(?:received[ \t]*>>>|(?:received[ \t]*)?(?:<<<|S:|<=))[ \t]*[45]\d\d",
    re.IGNORECASE | re.MULTILINE,
)
_NAMES_RECIPIENT = re.compile(
    r"[45]\d\d[ :-]{1,2}(?:[45]\.\d\.\d{1,3} )?<[^<>@\s]{1,200}@[^<>\s]{1,255}>:"
)
_BY_COMMAND = {
    "EHLO": Stage.HELLO, "HELO": Stage.HELLO, "LHLO": Stage.HELLO, "STARTTLS": Stage.HELLO,
    "AUTH": Stage.HELLO, "MAIL": Stage.MAIL, "RCPT": Stage.RCPT, "DATA": Stage.DATA,
    "BDAT": Stage.DATA,
}  # fmt: skip

_GAVE_UP = ".4.7"


def find_status(text: str) -> str:
    """The enhanced status code in a server's words, that behind a reply code first; or empty."""
    if "." not in text:
        return ""
    found = _STATUS_AFTER_REPLY.search(text) or _STATUS.search(text)
    if found is None:
        return ""
    if found[1].endswith(_GAVE_UP):  # why it stopped trying; behind it may stand what it met
        for inner in _STATUS.finditer(text, found.end()):
            if not inner[1].endswith(_GAVE_UP):
                return inner[1]
    return found[1]


def find_reply_code(text: str) -> str:
    """The reply code in a server's words: that at the start of what it said first; or empty."""
    for pattern in (_REPLY_FIRST, _REPLY):
        for found in pattern.finditer(text):
            if found[1] in _REPLY_CODES:
                return found[1]
    return ""


def find_stage(text: str, words: str) -> Stage:
    """The SMTP step at which the refusal in `text` came; `words` is the same as `words_of` it."""
    refusal = _REFUSAL.search(text)
    if refusal is not None:
        commands = _COMMAND.findall(text, 0, refusal.start())
        if commands:
            return _BY_COMMAND[commands[-1].upper()]
    named = set(wording.STAGE.found_in(words))
    stage = next((stage for stage in wording.STAGES if stage in named), Stage.UNKNOWN)
    if stage is Stage.UNKNOWN and _NAMES_RECIPIENT.search(text):
        return Stage.RCPT  # as Postfix and others answer RCPT: `550 <a@b.example>: User unknown`
    return stage


def is_specific(status: str) -> bool:
    """Whether an enhanced status code says more than permanent or temporary."""
    return bool(status) and not status.endswith(".0.0")
