"""Every operator of the search language with every other, by and, or, not, against plain sets."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from uuid import UUID

import pytest
from mail_platform import mail_platform
from search_world import World, mail

from mailyard.core.ids import uuid7
from mailyard.mailbox.search.language import languages
from mailyard.storage.database import Database
from mailyard.storage.partitions import ensure_partitions

FILE = (
    'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
    "Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n--b\r\n"
    'Content-Type: {kind}\r\nContent-Disposition: attachment; filename="{name}"\r\n\r\n'
    "{content}\r\n--b--\r\n"
)


def with_file(head: str, text: str, name: str, kind: str, content: str) -> bytes:
    return (head + FILE.format(text=text, kind=kind, name=name, content=content)).encode()


MAILS = {
    "harbour": mail("The blue harbour lies under the fog.", subject="Morning"),
    "reversed": mail("A harbour that is blue, of a kind " + "y" * 3_000, subject="Evening harbour"),
    "shop": mail(
        "Boots for the winter.",
        sender="Shop <offers@news.shop.example>",
        subject="Winter sale",
        more="List-Id: Weekly offers <weekly.shop.example>\r\n",
    ),
    "bill": with_file(
        "From: Bill <bill@example.org>\r\nTo: Desk <desk@inbox.test>\r\nSubject: March\r\n",
        "Please see what is attached.",
        "invoice-march.csv",
        "text/csv",
        "harbour dues;120",
    ),
    "photo": with_file(
        "From: Ann <ann@example.org>\r\nTo: Team <team@inbox.test>\r\nSubject: Fog\r\n",
        "The boots of the winter before.",
        "harbour.jpg",
        "image/jpeg",
        "not text " * 300,
    ),
    "tokyo": mail("明日の東京都の会議について。", subject="会議"),
    "quiet": mail("Nothing of interest.", sender="Zoe <zoe@elsewhere.example>", to="x@inbox.test"),
    "old": mail(
        "This is an old harbour, and here are the winter boots for you.",
        subject="Before all others",
    ),
}
UNREAD = {"harbour", "shop", "photo", "old"}
STARRED = {"harbour", "bill", "tokyo"}
LABELLED = {"shop", "bill", "quiet"}
ARCHIVED = {"reversed", "photo", "quiet"}
ALL = frozenset(MAILS)
# An operator on its own, and the mails that it is true of.
ATOMS: dict[str, set[str]] = {
    "harbour": {"harbour", "reversed", "bill", "photo", "old"},  # text files and names count
    '"blue harbour"': {"harbour"},
    "harb*": {"harbour", "reversed", "bill", "photo", "old"},
    "boot": {"shop", "photo", "old"},  # another form of a word
    "*arbou*": {"photo", "reversed"},  # parts of names and subjects
    "東京": {"tokyo"},
    "from:ann": {"harbour", "reversed", "photo", "tokyo", "old"},
    "to:desk": {"bill"},
    "subject:winter": {"shop"},
    "has:attachment": {"bill", "photo"},
    "filename:harbour": {"photo"},
    "list:weekly": {"shop"},
    "before:yesterday": {"old"},
    "after:yesterday": ALL - {"old"},
    "label:work": LABELLED,
    "folder:archive": ARCHIVED,
    "is:unread": UNREAD,
    "is:read": ALL - UNREAD,
    "is:starred": STARRED,
    "larger:2k": {"reversed", "photo"},
    "smaller:2k": ALL - {"reversed", "photo"},
}


class Filled(World):
    names: dict[UUID, str]

    async def fill_in(self) -> None:
        ids = dict(zip(MAILS, await self.fill(*MAILS.values()), strict=True))
        before = datetime.now(UTC) - timedelta(days=2)
        await ensure_partitions(self.database, before)
        earlier = uuid7(int(before.timestamp() * 1000))
        async with self.database.connection() as connection:
            for name, message_id in ids.items():
                await connection.execute(
                    "INSERT INTO line_state (inbox_id, message_id, retention_days, workspace_id,"
                    " thread_id, folder, labels, seen, starred)"
                    " VALUES ($1, $2, 0, $3, $2, $4, $5, $6, $7)",
                    self.inboxes["a"].id,
                    message_id,
                    self.workspace_id,
                    "archive" if name in ARCHIVED else "inbox",
                    ["work"] if name in LABELLED else [],
                    name not in UNREAD,
                    name in STARRED,
                )
            for table, column in (
                ("message", "id"),
                ("inbox_message", "message_id"),
                ("search_line", "message_id"),
                ("line_state", "message_id"),
            ):
                await connection.execute(
                    f"UPDATE {table} SET {column} = $2 WHERE {column} = $1", ids["old"], earlier
                )
        ids["old"] = earlier
        self.names = {message_id: name for name, message_id in ids.items()}

    async def named(self, text: str) -> set[str]:
        found = await self.find(text, limit=50, snippets=False)
        assert found.next_cursor is None
        ids = [hit.summary.id for hit in found.hits]
        assert ids == sorted(set(ids), reverse=True), "newest first, each once"
        return {self.names[one] for one in ids}


@pytest.fixture
async def world(database: Database) -> AsyncIterator[Filled]:
    async with mail_platform(database) as platform:
        world = Filled(platform, database)
        await world.open()
        yield world


async def test_every_operator_goes_with_every_other(world: Filled) -> None:
    await world.fill_in()
    wrong: dict[str, tuple[set[str], set[str]]] = {}

    async def expect(text: str, wanted: set[str] | frozenset[str]) -> None:
        found = await world.named(text)
        if found != wanted:
            wrong[text] = (set(wanted) - found, found - wanted)

    for atom, true in ATOMS.items():
        await expect(atom, true)
        await expect(f"not {atom}", ALL - true)
        await expect(f"-{atom}", ALL - true)
    assert wrong == {}, "(missing, too many)"
    for (one, first), (other, second) in combinations(ATOMS.items(), 2):
        await expect(f"{one} and {other}", first & second)
        await expect(f"{other} or {one}", first | second)
        await expect(f"{one} not {other}", first - second)
        await expect(f"{other} -{one}", second - first)
    assert wrong == {}, "(missing, too many)"
    third = ATOMS["is:starred"]
    for (one, first), (other, second) in list(combinations(ATOMS.items(), 2))[::7]:
        await expect(f"not ({one} or {other})", ALL - (first | second))
        await expect(f"({one} or {other}) and not is:starred", (first | second) - third)
        await expect(f"-({one} {other}) or is:starred", (ALL - (first & second)) | third)
    assert wrong == {}, "(missing, too many)"


# A word as a mail has it, and another form of it that is asked for; `simple` knows no forms.
FORMS = {
    "arabic": ("المدرسة", "مدرسة"),
    "armenian": ("քաղաքներ", "քաղաքից"),
    "basque": ("liburuak", "liburu"),
    "catalan": ("comandes", "comanda"),
    "danish": ("bøgerne", "bøger"),
    "dutch": ("boeken", "boek"),
    "english": ("shipping", "shipped"),
    "estonian": ("raamatud", "raamatu"),
    "finnish": ("taloissa", "talossa"),
    "french": ("livraisons", "livraison"),
    "german": ("Lieferungen", "Lieferung"),
    "greek": ("σπίτια", "σπίτι"),
    "hindi": ("किताबें", "किताबों"),
    "hungarian": ("házakban", "házak"),
    "indonesian": ("membaca", "baca"),
    "irish": ("leabhair", "leabhair"),
    "italian": ("spedizioni", "spedizione"),
    "lithuanian": ("namai", "namas"),
    "nepali": ("घरहरू", "घर"),
    "norwegian": ("bøkene", "bøker"),
    "portuguese": ("entregas", "entrega"),
    "romanian": ("cărțile", "cărți"),
    "russian": ("заказами", "заказ"),
    "serbian": ("knjigama", "knjiga"),
    "simple": ("Quokka", "quokka"),
    "spanish": ("entregas", "entrega"),
    "swedish": ("böckerna", "böcker"),
    "tamil": ("வீடுகள்", "வீடு"),
    "turkish": ("kitaplar", "kitap"),
    "yiddish": ("קינדער", "קינד"),
}


async def test_forms_of_a_word_are_found_in_every_language_of_postgresql(world: Filled) -> None:
    assert set(FORMS) == set(languages())
    missed = {}
    for language, (written, asked) in FORMS.items():
        async with world.database.transaction() as tx:
            await world.indexer.change(world.workspace_id, language=language, tx=tx)
        (found,) = await world.fill(mail(f"{written} 4711", subject=language))
        if found not in await world.ids(f"{asked} subject:{language}"):
            missed[language] = (written, asked)
    assert missed == {}
