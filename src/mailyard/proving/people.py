"""Who the demonstration writes to, and what each must read: from a run's word and a number.

Nothing is remembered: whoever checks a mail computes again what it must say, letter by letter.
"""

from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import NamedTuple

_FIRST_NAMES = ("Ada", "Zoë", "Søren", "Noor", "Łukasz", "Ngũgĩ", "Anaïs", "José", "Mei", "Ümit")
_LAST_NAMES = ("Lovelace", "O'Neill & Sons", "García", "Müller", "Nakamura", "<Dupont>", "Ødegård")
_CITIES = ("London", "Kraków", "São Paulo", "Reykjavík", "Hà Nội", "Genève", "Málaga", "Tromsø")
_CSV_ROWS_PER_CHUNK = 2_000

SUBJECT = "Your code is {{ code }}, {{ name }}"
TEXT = """Hello {{ name }},

your seat number {{ seat }} in {{ city }} is kept under the code {{ code }}.

This mail was sent by Mailyard to itself, to prove that nothing gets lost on the way.
"""
HTML = """<!doctype html>
<html><body style="margin: 0; padding: 24px; font-family: sans-serif">
<h1>Hello {{ name }}</h1>
<p>Your seat number <b>{{ seat }}</b> in {{ city }} is kept under the code <b>{{ code }}</b>.</p>
<p>This mail was sent by Mailyard to itself, to prove that nothing gets lost on the way.</p>
</body></html>
"""
CSV_HEADER = "City;E-Mail;Seat;Code;Name\r\n"


class Person(NamedTuple):
    """One recipient and the values of the four merge fields."""

    local_part: str
    name: str
    city: str
    seat: str
    code: str

    @property
    def subject(self) -> str:
        return f"Your code is {self.code}, {self.name}"

    @property
    def text(self) -> str:
        return (
            TEXT.replace("{{ name }}", self.name)
            .replace("{{ seat }}", self.seat)
            .replace("{{ city }}", self.city)
            .replace("{{ code }}", self.code)
        )

    @property
    def html_marks(self) -> tuple[str, str]:
        """The two elements of the HTML that hold merge fields, as a sanitiser writes them."""
        return (
            f"<h1>Hello {_escaped(self.name)}</h1>",
            f"<p>Your seat number <b>{self.seat}</b> in {self.city} is kept under the code "
            f"<b>{self.code}</b>.</p>",
        )

    def read_alike(self, subject: str, text: str | None, html: str | None) -> bool:
        """Whether a mail says exactly what this person must read."""
        if subject != self.subject or text is None or html is None:
            return False
        if text.replace("\r\n", "\n").rstrip() != self.text.rstrip():
            return False
        plain = html.replace("&#x27;", "'").replace("&#39;", "'")
        greeting, seat = self.html_marks
        return greeting in plain and seat in plain


def person(run: str, number: int) -> Person:
    """The recipient `number` (from 0) of the demonstration `run`."""
    code = blake2b(f"{run}:{number}".encode(), digest_size=8).hexdigest()
    return Person(
        local_part=f"demo-{run}-{number:07d}",
        name=f"{_FIRST_NAMES[number % len(_FIRST_NAMES)]} {_LAST_NAMES[number % len(_LAST_NAMES)]}",
        city=_CITIES[number % len(_CITIES)],
        seat=str(number + 1),
        code=code,
    )


async def csv_of(run: str, addresses: list[str]) -> AsyncIterator[bytes]:
    """The contacts of a run as a CSV file (UTF-8 with a mark, semicolons, quoted names)."""
    yield b"\xef\xbb\xbf" + CSV_HEADER.encode()
    for start in range(0, len(addresses), _CSV_ROWS_PER_CHUNK):
        lines = []
        for number, address in enumerate(addresses[start : start + _CSV_ROWS_PER_CHUNK], start):
            one = person(run, number)
            lines.append(f'{one.city};{address};{one.seat};{one.code};"{one.name}"\r\n')
        yield "".join(lines).encode()


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
