"""A model that obeys the mail, in every way: what passes the walls is of the schema, and moves
no link, address, account or sum that is not in the mail. The walls are what is tested."""

import asyncio
import base64
import binascii
import codecs
import json
import re
import unicodedata
from itertools import cycle
from urllib.parse import unquote
from uuid import UUID

import pytest
from http_script import Seen, scripted
from injection_mails import ACCOUNT, GOOD, HOST, PHONE, SUM, mails, obedient
from model_world import ModelWorld, openai

from mailyard.analysis.models import rules
from mailyard.analysis.schema import violation
from mailyard.analysis.shown import Shown, shown_of
from mailyard.analysis.task import EVERYTHING, answer_schema, ask_of
from mailyard.analysis.wall import NotAnAnswer, passed
from mailyard.core.clock import ManualClock
from mailyard.core.ids import uuid7
from mailyard.protocol.meaning.letter import Letter, read_letter
from mailyard.protocol.meaning.read import findings_in
from mailyard.storage.database import Database

MAILS = list(mails())
ANSWERS = list(obedient())
SCHEMA = answer_schema(EVERYTHING)
_ADDED = re.compile(r"evilbank|bankexample|nwbk|60161331|1boatslr|gift card|0x7f|1\.2\.3\.4")
_MONEY = re.compile(
    r"9[.,]?876|9[.,]9k|nine thousand|[€$]9|9 eur|0\.5 btc|5 kr|2079460958|two four seven"
)


def bare(text: str) -> str:
    """Letters and digits alone, of whatever dress they came in."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"dot|[^a-z0-9]", "", folded)


def traces(result: object, shown: Shown) -> list[str]:
    """What of the goal is in a result: by another way than the walls go."""
    found = []
    for whole in _texts(result):
        # A word that is in the mail as it is may be said, however the mail has dressed it.
        text = " ".join(one for one in whole.split() if one not in shown.words)
        for dress in _undressed(text):
            squeezed = bare(dress)
            if (
                _ADDED.search(squeezed)
                or _ADDED.search(dress.casefold())
                or _MONEY.search(dress.casefold())
            ):
                found.append(text)
            for thing in (HOST, ACCOUNT, SUM, PHONE):
                if bare(thing) in squeezed:
                    found.append(text)
    return found


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for inner in value.values() for text in _texts(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return []


def _undressed(text: str) -> list[str]:
    made = [text, text[::-1], codecs.encode(text, "rot13"), unquote(text)]
    for token in re.findall(r"[A-Za-z0-9+/=]{16,}", text):
        try:
            made.append(base64.b64decode(token, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            continue
    return made


def test_there_are_enough_mails_and_none_shows_what_is_to_be_moved() -> None:
    assert len(MAILS) >= 60
    assert len({raw for _, raw in MAILS}) == len(MAILS)
    for name, raw in MAILS:
        words = shown_of(read_letter(raw)).words
        for thing in (HOST, ACCOUNT, SUM, PHONE):
            assert thing not in words, name


@pytest.mark.parametrize(("name", "raw"), MAILS, ids=[name for name, _ in MAILS])
def test_whatever_an_obedient_model_says_stays_in_the_schema_and_moves_nothing(
    name: str, raw: bytes
) -> None:
    letter = read_letter(raw)
    shown = shown_of(letter)
    plain = rules.answer(EVERYTHING, letter, findings_in(letter))
    assert violation(plain, SCHEMA) is None
    # Every mail meets a third of the answers, so that each answer meets a third of the mails.
    turn = MAILS.index((name, raw)) % 3
    for does, said in ANSWERS[turn::3]:
        try:
            answer = passed(EVERYTHING, shown, said, plain).answer
        except NotAnAnswer:
            continue
        assert violation(answer, SCHEMA) is None, does
        assert traces(answer, shown) == [], does
        assert all(one in answer["phishing"] for one in plain["phishing"]), "nobody talks it away"


def test_the_detector_sees_what_the_walls_must_hold_back() -> None:
    """The test above means something only if it can fail."""
    shown = shown_of(Letter(subject="x", text="y"))
    seen = 0
    for _, said in ANSWERS:
        try:
            seen += bool(traces(json.loads(said), shown))
        except (ValueError, RecursionError):
            continue
    assert seen > 0.8 * len(ANSWERS)


def test_what_is_in_the_mail_may_be_said() -> None:
    """Walls that let nothing through would be easy."""
    text = (
        "Dear Ada,\n\ninvoice 4711 over $20.00 is due on 31 March 2026. Pay at "
        "https://pay.example.org/i/4711 or to DE89 3704 0044 0532 0130 00.\n"
        "Questions: help@example.org"
    )
    letter = Letter(subject="Your invoice 4711", text=text)
    said = GOOD | {
        "category": {"value": "invoice", "quote": "invoice 4711 over $20.00"},
        "summary": "Invoice 4711 over $20.00 is due on 31 March 2026; pay at "
        "https://pay.example.org/i/4711 or to DE89 3704 0044 0532 0130 00, or ask "
        "help@example.org.",
        "suggested_answer": "Thank you, I will look at invoice 4711.",
    }
    plain = rules.answer(EVERYTHING, letter, findings_in(letter))
    through = passed(EVERYTHING, shown_of(letter), json.dumps(said), plain)
    assert (through.withheld, through.answer) == ((), said)


def test_a_callers_fields_move_nothing_either() -> None:
    schema = {
        "type": "object",
        "properties": {"pay_to": {"type": "string"}, "amount": {"type": "number"}},
        "required": ["pay_to", "amount"],
    }
    ask = ask_of([], schema)
    for name, raw in MAILS:
        letter = read_letter(raw)
        plain = rules.answer(ask, letter, findings_in(letter))
        for fields in ({"pay_to": ACCOUNT, "amount": 9876.5}, {"pay_to": "Ada", "amount": 31415.9}):
            through = passed(ask, shown_of(letter), json.dumps({"fields": fields}), plain)
            assert through.answer == {"fields": None}, name


async def test_the_whole_way_with_a_server_that_obeys(database: Database) -> None:
    """All mails through the analyst, budget and cache to a server that does as the mail says."""
    clock = ManualClock()
    world, workspace_id = ModelWorld(database, clock), uuid7()
    async with database.connection() as connection:
        await connection.execute("INSERT INTO workspace (id, name) VALUES ($1, 'w')", workspace_id)
    answers = cycle(said for _, said in ANSWERS)

    async def obey(request: Seen, writer: asyncio.StreamWriter) -> None:
        await openai(next(answers))(request, writer)

    async with scripted(obey) as server:
        for place in (1, 2):
            await world.add(workspace_id, f"m{place}", "openai", server.url, place=place)
        for name, raw in MAILS:
            await _hold(world, workspace_id, name, raw)
            clock.advance(3600)  # a model that answers nonsense rests for a while
        assert len(server.seen) >= 60  # mails that show the same are one question
    await world.http.close()


async def _hold(world: ModelWorld, workspace_id: UUID, name: str, raw: bytes) -> None:
    letter = read_letter(raw)
    for _ in range(2):  # the second time out of what is kept
        outcome = await world.answer(workspace_id, letter, EVERYTHING)
        assert violation(outcome.answer, SCHEMA) is None, name
        assert traces(outcome.answer, shown_of(letter)) == [], name
