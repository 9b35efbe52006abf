"""Tracking numbers. A number with a check digit is one only if the digit holds.

What is so short that a random number passes by chance needs its carrier, or a word for it, nearby.
Check digits: UPU standard S10 (weights 8 6 4 2 3 5 9 7, mod 11); UPS 1Z (mod 10, letters as
(code - 3) mod 10); USPS and FedEx Ground (mod 10, weights 3 1 from the right); FedEx Express
(weights 1 3 7 from the right, mod 11, mod 10); DHL Express (mod 7); DPD (ISO 7064 mod 37,36);
Deutsche Post Identcode (weights 4 9, mod 10).
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mailyard.protocol.meaning.finding import HTML, ParcelNumber, Part
from mailyard.protocol.meaning.letter import Letter, evidence

_FOUND = 50
_NEAR = 250  # characters around, in which the carrier must be named


def _mod10_31(digits: str) -> bool:
    """Weights 3 and 1 in turn, from the digit before the last."""
    total = sum(
        int(one) * (3 if place % 2 == 0 else 1) for place, one in enumerate(reversed(digits[:-1]))
    )
    return (10 - total % 10) % 10 == int(digits[-1])


def _s10(number: str) -> bool:
    weights = (8, 6, 4, 2, 3, 5, 9, 7)
    rest = (
        11 - sum(int(one) * weight for one, weight in zip(number[2:10], weights, strict=True)) % 11
    )
    return {10: 0, 11: 5}.get(rest, rest) == int(number[10])


def _ups(number: str) -> bool:
    values = [int(one) if one.isdigit() else (ord(one) - 3) % 10 for one in number[2:]]
    total = sum(value * (2 if place % 2 else 1) for place, value in enumerate(values[:-1]))
    return (10 - total % 10) % 10 == values[-1]


def _fedex_express(number: str) -> bool:
    total = sum(int(one) * (1, 3, 7)[place % 3] for place, one in enumerate(reversed(number[:-1])))
    return total % 11 % 10 == int(number[-1])


def _dhl_express(number: str) -> bool:
    return int(number[:9]) % 7 == int(number[9])


def _dpd(number: str) -> bool:
    """ISO 7064 MOD 37,36 over 14 digits and a check character."""
    alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    product = 36
    for one in number[:14]:
        product = (product + alphabet.index(one)) % 36 or 36
        product = product * 2 % 37
    return alphabet[(37 - product) % 36] == number[14]


def _identcode(number: str) -> bool:
    total = sum(int(one) * (4 if place % 2 == 0 else 9) for place, one in enumerate(number[:-1]))
    return (10 - total % 10) % 10 == int(number[-1])


def _usps(number: str) -> bool:
    plain = number[8:] if len(number) == 30 else number
    return _mod10_31(plain)


@dataclass(frozen=True, slots=True)
class _Carrier:
    """How a carrier's numbers look. `near`: what must stand around one that could be chance."""

    name: str
    shape: re.Pattern[str]
    holds: Callable[[str], bool] | None
    near: re.Pattern[str] | None = None


_PARCEL = (
    r"track|shipment|shipped|shipping|parcel|package|deliver|sendung|paket|versand|colis|suivi|"
    r"livraison|env[ií]o|seguimiento|paquete|spedizion|tracciam|pacco|zending|pakket|przesy[lł]k|"
    r"paczk|z[aá]silk|посылк|отправлен|трек|快递|物流|运单|追跡|送り状|운송장|배송|rastre|encomenda|kargo"
)


def _named(names: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{names})\b", re.IGNORECASE)


def _named_or_parcel(names: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{names})\b|{_PARCEL}", re.IGNORECASE)


_CARRIERS = (
    _Carrier(
        "ups",
        re.compile(r"1Z ?[A-Z0-9]{3} ?[A-Z0-9]{3} ?[A-Z0-9]{2} ?\d{4} ?\d{3} ?\d|1Z[A-Z0-9]{16}"),
        _ups,
    ),
    _Carrier(
        "post",
        re.compile(r"[A-Z]{2} ?\d{3} ?\d{3} ?\d{3} ?[A-Z]{2}|[A-Z]{2} ?\d{8} ?\d ?[A-Z]{2}"),
        _s10,
    ),
    _Carrier("amazon", re.compile(r"TB[ACM]\d{12}"), None),
    _Carrier("dhl", re.compile(r"JJD\d{12,20}|JVGL\d{8,20}|GM\d{16,18}"), None),
    _Carrier(
        "usps", re.compile(r"(?:420\d{5})?9[1-5]\d{2} ?\d{4} ?\d{4} ?\d{4} ?\d{4} ?\d{2}"), _usps
    ),
    _Carrier("dpd", re.compile(r"\d{14}[0-9A-Z]"), _dpd, _named("DPD")),
    _Carrier("fedex", re.compile(r"\d{4} ?\d{4} ?\d{4}"), _fedex_express, _named(r"FedEx|fdx")),
    _Carrier("fedex", re.compile(r"\d{15}"), _mod10_31, _named(r"FedEx|fdx")),
    _Carrier("usps", re.compile(r"\d{20}"), _mod10_31, _named_or_parcel("USPS|postal service")),
    _Carrier(
        "deutsche_post", re.compile(r"\d{12}|\d{14}"), _identcode, _named("DHL|Deutsche Post")
    ),
    _Carrier(
        "dhl_express",
        re.compile(r"\d{3} ?\d{4} ?\d{3}|\d{10}"),
        _dhl_express,
        _named("DHL|AWB|waybill|Luftfrachtbrief"),
    ),
)
_CANDIDATE = re.compile(
    r"(?<![A-Za-z0-9@#/=_-])(?:1Z[ A-Z0-9]{16,22}"
    r"|[A-Z]{2} ?\d[\d ]{7,10}\d ?[A-Z]{2}|TB[ACM]\d{12}|JJD\d{12,20}"
    r"|JVGL\d{8,20}|GM\d{16,18}|\d(?:[ ]?\d){9,29}[A-Z]?)(?![A-Za-z0-9@_]|-\w)"
)


def parcels_of(letter: Letter) -> tuple[ParcelNumber, ...]:
    """The tracking numbers, each once, in their order."""
    found: dict[str, ParcelNumber] = {}
    for part, text in letter.parts():
        if part == HTML and found:
            break
        for parcel in _in_text(part, text):
            found.setdefault(parcel.number, parcel)
            if len(found) >= _FOUND:
                break
    return tuple(found.values())


def _in_text(part: Part, text: str) -> Iterator[ParcelNumber]:
    for candidate in _CANDIDATE.finditer(text):
        shown = candidate[0].rstrip()
        around: str | None = None
        for carrier in _CARRIERS:
            if carrier.shape.fullmatch(shown) is None:
                continue
            number = shown.replace(" ", "")
            if carrier.holds is not None and not carrier.holds(number):
                continue
            if carrier.near is not None:
                around = around or text[max(0, candidate.start() - _NEAR) : candidate.end() + _NEAR]
                if carrier.near.search(around) is None:
                    continue
            where = evidence(part, text, candidate.start(), candidate.start() + len(shown))
            yield ParcelNumber(number, carrier.name, carrier.holds is not None, where)
            break
