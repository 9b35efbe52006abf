"""Sums of money: a number with a currency before or behind it."""

import re
from collections.abc import Iterator

from mailyard.protocol.meaning.finding import HTML, FoundAmount, Part
from mailyard.protocol.meaning.letter import Letter, evidence

_FOUND = 100
# ISO 4217: the active codes that are seen in mail. Longer signs first.
_CODES = """
    USD EUR GBP JPY CNY RMB CHF CAD AUD NZD HKD SGD TWD KRW INR PKR BDT LKR NPR THB VND IDR MYR PHP
    SEK NOK DKK ISK PLN CZK HUF RON BGN TRY RUB UAH KZT ILS AED SAR QAR KWD EGP MAD TND NGN KES GHS
    ZAR BRL MXN ARS CLP COP PEN UYU RSD GEL BTC ETH USDT
"""
_SIGNS = """
    US$=USD A$=AUD AU$=AUD C$=CAD CA$=CAD NZ$=NZD HK$=HKD S$=SGD NT$=TWD R$=BRL MX$=MXN $=$ €=EUR
    £=GBP ¥=¥ ￥=¥ ₹=INR ₽=RUB ₩=KRW ₺=TRY ₪=ILS ₴=UAH ₫=VND ฿=THB ₦=NGN ₱=PHP ₿=BTC zł=PLN Kč=CZK
    Ft=HUF lei=RON лв=BGN kr=kr Kr=kr Fr.=CHF SFr.=CHF Rs.=INR Rs=INR 元=CNY 円=JPY 원=KRW руб=RUB
    грн=UAH euro=EUR Euro=EUR euros=EUR dollars=$ pounds=GBP TL=TRY RM=MYR Rp=IDR
"""
CODES = tuple(_CODES.split())
SIGNS = dict(pair.split("=") for pair in _SIGNS.split())
_SIGN = "|".join(re.escape(one) for one in sorted([*SIGNS, *CODES], key=len, reverse=True))
_NUMBER = (
    r"(?:\d{1,3}(?:[.,'’\u00a0\u202f\u2009 ]\d{3}){1,5}(?:[.,]\d{1,2}(?!\d))?"
    r"|\d{1,2}(?:,\d{2}){1,4},\d{3}(?:\.\d{1,2}(?!\d))?"  # India's: 12,34,567
    r"|\d{1,12}(?:[.,]\d{1,8}(?!\d))?)"
)
_GAP = "[ \u00a0\u202f]?"
_BEFORE = re.compile(
    rf"(?<![A-Za-z\u00c0-\u04ff])(?P<sign>{_SIGN}){_GAP}-?"
    rf"(?P<number>{_NUMBER})(?:,-|\.–)?(?!\d|[.,]\d)"
)
_BEHIND = re.compile(
    rf"(?<![\d.,])(?P<number>{_NUMBER})(?:,-|\.-)?{_GAP}"
    rf"(?P<sign>{_SIGN})(?![A-Za-z\u00c0-\u024f\u0400-\u04ff])"
)


def amounts_of(letter: Letter) -> tuple[FoundAmount, ...]:
    """The sums, each once, in their order; of the HTML when the rest has none."""
    found: dict[tuple[str, str], FoundAmount] = {}
    for part, text in letter.parts():
        if part == HTML and found:
            break
        for amount in amounts_in(part, text):
            found.setdefault((amount.value, amount.currency), amount)
            if len(found) >= _FOUND:
                return tuple(found.values())
    return tuple(found.values())


def amounts_in(part: Part, text: str) -> Iterator[FoundAmount]:
    """Every sum of a text, in its order."""
    taken: list[tuple[int, int, str, str]] = []
    for pattern in (_BEFORE, _BEHIND):
        for found in pattern.finditer(text):
            if any(
                found.start() < end and start < found.end() for start, end, _, _ in taken[-200:]
            ):
                continue
            value = decimal_of(found["number"])
            sign = found["sign"]
            taken.append((found.start(), found.end(), value, SIGNS.get(sign, sign)))
            if len(taken) >= 4 * _FOUND:
                break
    for start, end, value, currency in sorted(taken):
        yield FoundAmount(value, currency, evidence(part, text, start, end))


def decimal_of(number: str) -> str:
    """`1.234,50` and `1,234.50` are `1234.50`: the last mark is the decimal one, unless three
    digits follow it or it stands there more than once."""
    plain = re.sub(r"['’\s\u00a0\u202f\u2009]", "", number)
    last = max(plain.rfind("."), plain.rfind(","))
    if last < 0:
        return plain
    mark, fraction = plain[last], plain[last + 1 :]
    head = plain[:last].replace(".", "").replace(",", "")
    whole = plain.count(mark) > 1 or (len(fraction) == 3 and head.lstrip("0") != "")
    return head + fraction if whole else f"{head}.{fraction}"
