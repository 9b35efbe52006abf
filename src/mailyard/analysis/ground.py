"""What a text names that acts (links, addresses, numbers, sums), and whether a mail has it.

An answer may say only what stands in the mail, as a whole: `example.org` is in a mail that links to
`https://example.org/a`, `ample.org` is not. Ways to write such a thing so that it is not seen (dots
in brackets, letters of full width, `hxxp`, a name said in words) are undone before the look; that
is done to the mail as well, so what is in it stays in it. Mistakes lie on the side of finding too
much: they cost a sentence of an answer, never a reader.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property

from mailyard.analysis.shown import plain
from mailyard.protocol.meaning.amount import CODES, SIGNS, amounts_in, decimal_of
from mailyard.protocol.meaning.finding import TEXT
from mailyard.protocol.meaning.words import fold

# Written apart so that a filter does not see it.
_DOTS = re.compile(
    r"\s*[\[({<]\s*(?:\.|dot|punkt|point|punto|ponto|kropka|точка)\s*[\])}>]\s*"
    r"|(?<=\w)\s+(?:dot|d0t|punkt|точка)\s+(?=\w)|[\u3002\uff0e\uff61\u2024\u00b7\u2027\u30fb](?=\w)"
)
_ATS = re.compile(
    r"\s*[\[({<]\s*(?:@|at|ät|arroba|malpa|собака)\s*[\])}>]\s*|(?<=\w)\s+(?:arroba)\s+(?=\w)"
)
_AT_WORD = re.compile(r"(?<=\w) at (?=[\w-]+\.\w)")
_SLASHES = re.compile(r"[\u2044\u2215\u29f8\uff0f\\]")
_COLONS = re.compile(r"\s*[\[(]\s*:\s*[\])]\s*|[\ua789\u2236\ufe55](?=/)")
_HXXP = re.compile(r"h(?:xx|tt|\*\*|__)p(s?)(?=:|\[|\()")
_PERCENT = re.compile(r"%([2-7][0-9a-f])")

_HOST = re.compile(r"(?<![\w@.-])((?:[\w-]{1,63}\.){1,10}[^\W\d_][\w-]{1,62})(?![\w-])")
_URL = re.compile(r"(?:[a-z][a-z0-9+.-]{1,20}:)?//[^\s<>\"'`|^]{1,2000}")
_SCHEME = re.compile(
    r"(?<!\w)(?:mailto|tel|sms|javascript|vbscript|data|file|ftp|ftps|sftp|ssh|bitcoin|ethereum|"
    r"litecoin|monero|lightning|ipfs|magnet|intent|skype|callto|facetime|whatsapp|tg|signal|slack|"
    r"zoommtg|itms|market|upi|pay|geo|maps|webcal|blob|about|chrome|ms-\w+):\s?(\S{1,500})"
)
_MAILBOX = re.compile(r"[\w.!#$%&*+/=?^{|}~-]{1,64}@[\w.-]{1,255}")
_HANDLE = re.compile(r"(?<![\w@.])@([\w.]{2,64})")
_IP = re.compile(
    r"(?<![\w.])(?:0x[0-9a-f]{2,8}|\d{1,10})(?:\.(?:0x[0-9a-f]{1,2}|\d{1,10})){1,3}(?![\w])|\[[0-9a-f:]{3,45}\]"
)
_DIGITS = re.compile(r"(?<!\d)\d(?:[ \-./()\u00a0\u2010-\u2015]{0,3}\d)+(?!\d)")
_NUMBER = re.compile(r"\d+(?:[.,' ]\d{3})*(?:[.,]\d+)?|\d+")
_OPAQUE = re.compile(r"[!-~\u00a1-\u024f]{20,}")
_CODELIKE = re.compile(r"(?<![\w])(?=[a-z]*\d)(?=\d*[a-z])[a-z0-9]{4,}(?:-[a-z0-9]{2,})*(?![\w])")
# ISO 13616: its letters are a part of it, however it is parted.
_IBAN = re.compile(r"(?<!\w)[a-z]{2}\d\d(?:\s?[a-z0-9]{4}){2,7}(?:\s?[a-z0-9]{1,4})?(?!\w)")
_TRAILING = ".,;:!?*_'\"»›)]}"
_SHORT_DIGITS = 2  # one digit alone says little: a count

_MONEY = re.compile(
    "|".join(
        [rf"(?<![a-z]){re.escape(code.lower())}(?![a-z])" for code in CODES if code != "TRY"]
        + [re.escape(sign.lower()) for sign in SIGNS if not sign.isascii() or sign == "$"]
        + [
            r"(?<![a-z])(?:dollars?|bucks?|euros?|pounds?|quid|yen|yuan|renminbi|rupees?|rubles?|roubles?|"
            r"francs?|franken|kron[aeo]r?|zloty\w*|koruna?|lira|pesos?|reais|bitcoins?|satoshis?|"
            r"ether(?:eum)?|monero|tether|usd[tc]|gift ?cards?|guthabenkarten?|cents?)(?![a-z])",
            r"доллар\w*|евро|рубл\w*|гривн\w*|биткоин\w*|美元|欧元|人民币|比特币|ドル|ユーロ|ビットコイン|달러|유로",
        ]
    )
)
_SMALL_MONEY = re.compile(
    r"\d\s?(?:kr|ft|lei|rs|tl|rm|rp|fr|nok|lv)\b|\b(?:kr|ft|rs|tl|rm|rp|fr)\.?\s?\d[\d.,]*"
)
_MULTIPLIED = re.compile(
    r"\d\s?(?:k|m|mm|mn|bn|tsd|mio|mrd|thousand|million|billion|tausend|millionen?|mille|mil|millones|тыс|млн|万|億|亿|천|만)\b"
)
_NUMBER_WORDS = frozenset(
    fold(one)
    for one in [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "twenty",
        "thirty",
        "forty",
        "fifty",
        "hundred",
        "thousand",
        "million",
        "null",
        "eins",
        "zwei",
        "drei",
        "vier",
        "fünf",
        "sechs",
        "sieben",
        "acht",
        "neun",
        "zehn",
        "hundert",
        "tausend",
        "un",
        "deux",
        "trois",
        "quatre",
        "cinq",
        "sept",
        "huit",
        "neuf",
        "dix",
        "cent",
        "mille",
        "uno",
        "dos",
        "tres",
        "cuatro",
        "cinco",
        "seis",
        "siete",
        "ocho",
        "nueve",
        "diez",
        "cien",
        "mil",
        "due",
        "tre",
        "quattro",
        "cinque",
        "sei",
        "sette",
        "otto",
        "nove",
        "dieci",
        "mila",
        "double",
        "triple",
    ]
)
_SPELLED = 4  # number words in a row are a number


class Grounds:
    """What a mail has. `words` is all that a person sees of it."""

    def __init__(self, words: str) -> None:
        self._words = plain(words)
        self._undone = _undone(words)

    def strange(self, text: str) -> list[str]:
        """The kinds of things that `text` names and the mail does not have; empty: none."""
        told = _undone(text)
        found = self._strange_things(told)
        if not found and _PERCENT.search(told):
            # What the mail has encoded may be said so, and not what it would be decoded.
            rest = _URL.sub(lambda link: "" if link[0] in self._undone else link[0], told)
            found = self._strange_things(_PERCENT.sub(lambda one: chr(int(one[1], 16)), rest))
        if _strange_money(self._undone, told):
            found.append("a sum of money")
        if _strange_words(self._undone, told):
            found.append("a number in words")
        return found

    def _strange_things(self, told: str) -> list[str]:
        found = []
        for kind, things in _THINGS:
            named = set(things(told))
            if named and not named <= self._have(kind):
                found.append(kind)
        return found

    def stands(self, text: str) -> bool:
        """Whether the mail has `text` letter by letter, and not as a part of a longer word."""
        said = plain(text)
        start = self._words.find(said) if said else -1
        while start >= 0:
            end = start + len(said)
            if not (
                _joins(self._words[:start][-1:], said[0])
                or _joins(said[-1], self._words[end : end + 1])
            ):
                return True
            start = self._words.find(said, start + 1)
        return False

    def has_number(self, value: float) -> bool:
        """Whether the mail has the number, however it marks thousands and decimals."""
        return value in self._numbers

    def _have(self, kind: str) -> frozenset[str]:
        if kind not in self._sets:
            self._sets[kind] = frozenset(dict(_THINGS)[kind](self._undone))
        return self._sets[kind]

    @cached_property
    def _sets(self) -> dict[str, frozenset[str]]:
        return {}

    @cached_property
    def _numbers(self) -> frozenset[float]:
        found: set[float] = set()
        for one in _NUMBER.findall(self._undone):
            for text in (
                one,
                decimal_of(one),
                one.replace(",", ""),
                one.replace(".", "").replace(",", "."),
            ):
                with suppress(ValueError):
                    found.add(float(text))
        return frozenset(found | {-one for one in found})


def _joins(left: str, right: str) -> bool:
    """Whether two neighbours belong to one word, name or address."""
    if not left or not right or not (left + right).isascii():
        return False
    return (
        (left.isalnum() or left in ".-@_")
        and (right.isalnum() or right in "-@_")
        and (left.isalnum() or right.isalnum())
    )


def _undone(text: str) -> str:
    """`text` with what hides a link or an address taken away."""
    said = plain(text)
    said = _HXXP.sub(r"http\1", said)
    said = _COLONS.sub(":", _SLASHES.sub("/", said))
    dotted = _ATS.sub("@", _DOTS.sub(".", said))
    return dotted if dotted == said else _AT_WORD.sub("@", dotted)


def _links(text: str) -> Iterator[str]:
    for found in _URL.finditer(text):
        yield found[0].partition("//")[2].rstrip(_TRAILING)
    for found in _SCHEME.finditer(text):
        yield found[1].rstrip(_TRAILING)
    for found in _HOST.finditer(text):
        yield found[1].removeprefix("www.").rstrip(".-")
    for found in _IP.finditer(text):
        yield found[0]
    # A name's host, and a host without its first label's `www`, are in a text that has the whole.
    for found in _MAILBOX.finditer(text):
        yield found[0].rpartition("@")[2].rstrip(".-")


def _addresses(text: str) -> Iterator[str]:
    for found in _MAILBOX.finditer(text):
        yield found[0].rstrip(_TRAILING)
    for found in _HANDLE.finditer(text):
        yield found[1].rstrip(_TRAILING)


def _numbers(text: str) -> Iterator[str]:
    for found in _DIGITS.finditer(text):
        digits = "".join(one for one in found[0] if one.isdigit())
        if len(digits) >= _SHORT_DIGITS:
            yield digits
        # What is one number here may be two there: each part of it is a number as well.
        for piece in re.findall(r"\d+", found[0]):
            if len(piece) >= _SHORT_DIGITS:
                yield piece


def _codes(text: str) -> Iterator[str]:
    for found in _OPAQUE.finditer(text):
        yield found[0].strip(_TRAILING + "([{<«‹*_")
    for found in _CODELIKE.finditer(text):
        yield found[0]
    for found in _IBAN.finditer(text):
        yield "".join(found[0].split())


_THINGS: tuple[tuple[str, Callable[[str], Iterator[str]]], ...] = (
    ("a link", _links),
    ("an address", _addresses),
    ("a number", _numbers),
    ("a code", _codes),
)


def _strange_money(mail: str, told: str) -> bool:
    if any(found[0] not in mail for found in _SMALL_MONEY.finditer(told)):
        return True
    if not _MONEY.search(told):
        return False
    have = {(one.value, one.currency) for one in amounts_in(TEXT, _upper_codes(mail))}
    spans = []
    for one in amounts_in(TEXT, _upper_codes(told)):
        if (one.value, one.currency) not in have:
            return True
        spans.append((one.evidence.start, one.evidence.end))
    for found in _MULTIPLIED.finditer(told):
        if told[max(0, found.start() - 6) : found.end()].strip() not in mail:
            return True
    for found in _MONEY.finditer(told):
        if any(start <= found.start() < end for start, end in spans):
            continue
        # A currency without its number: the mail must say it so, with the two words before it.
        before = told[: found.start()].split()[-2:]
        if " ".join([*before, found[0]]) not in mail:
            return True
    return False


def _upper_codes(text: str) -> str:
    """Currency codes as they are known, in a text without case; signs of one letter as well."""
    return _CODE_WORDS.sub(lambda found: found[0].upper(), text).replace("kč", "Kč")


_CODE_WORDS = re.compile(r"(?<![a-z])(?:" + "|".join(one.lower() for one in CODES) + r")(?![a-z])")


def _strange_words(mail: str, told: str) -> bool:
    """A number said digit by digit that the mail does not say so."""
    row: list[str] = []
    for word in [*re.findall(r"[^\W_]+", told), ""]:
        if fold(word) in _NUMBER_WORDS:
            row.append(word)
            continue
        if len(row) >= _SPELLED and " ".join(row) not in " ".join(re.findall(r"[^\W_]+", mail)):
            return True
        row = []
    return False
