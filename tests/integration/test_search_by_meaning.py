"""Search by meaning, with the real model and pgvector, from mail that came in."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from mail_platform import mail_platform
from search_world import World, mail

from mailyard.core.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.mailbox.search.embedders import wordllama
from mailyard.mailbox.search.embedders.wordllama import WordLlama
from mailyard.mailbox.search.index import Named
from mailyard.mailbox.search.search import MEANING
from mailyard.mailbox.search.vectors import Vectors
from mailyard.storage.database import Database, DatabaseAddress

MODEL = WordLlama()


class MeaningWorld(World):
    async def switch(self, on: bool) -> None:
        async with self.database.transaction() as tx:
            await self.indexer.change(self.workspace_id, by_meaning=on, tx=tx)

    async def say(self, inbox: str, on: bool | None) -> None:
        async with self.database.transaction() as tx:
            await self.indexer.say(self.workspace_id, self.inboxes[inbox].id, on, tx)

    async def said(self, text: str, inbox: str | None = None, **more: object) -> list[UUID]:
        return await self.ids(text, inbox, mode=MEANING, **more)


async def vectors_of(world: MeaningWorld) -> int:
    async with world.database.connection() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM search_vector"))


@pytest.fixture
async def world(database: Database) -> AsyncIterator[MeaningWorld]:
    async with mail_platform(database) as platform:
        world = MeaningWorld(platform, database, MODEL)
        await world.open()
        await world.switch(True)
        yield world


MAILS = {
    "parcel": ("Your order", "The courier could not hand over your parcel and comes tomorrow."),
    "bill": ("Invoice 2034", "The amount of 120 euro is overdue. Please pay by Friday."),
    "password": ("Reset", "Click here to choose a new password for your account."),
    "lunch": ("Thursday", "We eat at noon in the canteen, bring the new colleagues."),
    "flight": ("Booking", "Your flight to Berlin has been cancelled by the airline."),
    "job": ("Application", "We would like to invite you to an interview for the position."),
}
ASKED = {
    "shipment delayed": "parcel",
    "money that we owe": "bill",
    "I cannot log in any more": "password",
    "eating together with the team": "lunch",
    "plane does not go": "flight",
    "hiring a candidate": "job",
}


async def test_what_says_the_like_comes_first_without_a_word_in_common(world: MeaningWorld) -> None:
    ids = dict(
        zip(
            MAILS,
            await world.fill(*(mail(text, subject=subject) for subject, text in MAILS.values())),
            strict=True,
        )
    )
    first = {text: (await world.said(text, "a"))[0] for text in ASKED}
    right = [text for text, name in ASKED.items() if first[text] == ids[name]]
    assert len(right) >= 5, right
    assert await world.ids("shipment delayed") == []  # by words
    assert await world.said("shipment before:2020") == []
    assert await world.said("shipment", "b") == []
    page = await world.find("parcel order flight", mode=MEANING, limit=1)
    rest = await world.find("parcel order flight", mode=MEANING, cursor=page.next_cursor)
    assert page.hits[0].summary.id not in [hit.summary.id for hit in rest.hits]
    assert "<mark>" in page.hits[0].snippet + page.hits[0].subject


async def test_vectors_end_with_their_mail(world: MeaningWorld) -> None:
    both = await world.deliver(mail("the train is late again"), "a", "b")
    await world.index()
    assert await world.said("railway delay") == [both]
    assert (await world.search.find(world.workspace_id, "railway", mode=MEANING)).hits
    await world.platform.inboxes.extend(world.workspace_id, world.inboxes["b"].id, None)
    assert await world.said("railway delay", "b") == [both]
    await world.platform.messages.delete(world.workspace_id, [both], world.inboxes["b"].id)
    assert await world.said("railway delay", "b") == []
    await world.platform.messages.delete(world.workspace_id, [both], world.inboxes["a"].id)
    assert await world.said("railway delay") == []


async def test_it_is_off_until_a_workspace_switches_it_on(world: MeaningWorld) -> None:
    await world.switch(False)
    (quiet,) = await world.fill(mail("a meeting about the budget"))
    with pytest.raises(InvalidInput, match="switched off in this workspace"):
        await world.said("finances")
    await world.switch(True)
    assert await world.said("finances") == []
    await world.indexer.index(world.workspace_id, [Named(quiet, 0, 100)])
    assert await world.said("finances talk") == [quiet]
    world.search._vectors = Vectors(database=world.database, embedder=None)
    with pytest.raises(InvalidInput, match="MAILYARD_SEMANTIC_SEARCH"):
        await world.said("finances")


async def test_an_inbox_says_for_itself_whether_its_mail_is_found_so(world: MeaningWorld) -> None:
    await world.switch(False)
    await world.say("a", True)
    in_a = await world.deliver(mail("a meeting about the budget"), "a")
    await world.deliver(mail("a meeting about the budget"), "b")
    in_both = await world.deliver(mail("the budget and its meeting"), "a", "b")
    await world.index()
    assert set(await world.said("finances talk")) == {in_a, in_both}
    assert set(await world.said("finances talk", "a")) == {in_a, in_both}
    with pytest.raises(InvalidInput, match="switched off in this inbox"):
        await world.said("finances", "b")
    assert await vectors_of(world) == 2, "nothing is made for an inbox that does not want it"

    await world.switch(True)
    await world.say("a", False)
    later = await world.deliver(mail("about the money that is left"), "b")
    await world.deliver(mail("about the money that is left"), "a")
    await world.index()
    assert await world.said("finances talk") == [later], "what was made for it is not looked at"
    with pytest.raises(InvalidInput, match="switched off in this inbox"):
        await world.said("finances", "a")
    await world.say("a", None)
    assert set(await world.said("finances talk", "a")) == {in_a, in_both}
    with pytest.raises(NotFound):
        await world.indexer.says(uuid7(), world.inboxes["a"].id)


async def test_it_is_said_in_words(world: MeaningWorld) -> None:
    for text in ("is:unread money", "has:attachment", "from: ann", "after:7d"):
        with pytest.raises(InvalidInput, match="by meaning"):
            await world.said(text)


async def test_a_server_that_does_not_give_pgvector_is_named(
    database: Database, database_url: str
) -> None:
    """A role that may not make it stands for a server that has none."""
    role = f"mailyard_test_{uuid7().hex}"
    own = f"{database_url}{'&' if '?' in database_url else '?'}role={role}"
    async with database.connection() as connection:
        await connection.execute(f"CREATE ROLE {role}")
    poor = Database(DatabaseAddress(own, own, connections=1))
    try:
        await poor.open()
        with pytest.raises(Conflict, match=r"pgvector 0\.7 or newer .*permission denied"):
            await Vectors(database=poor, embedder=MODEL).prepare()
    finally:
        await poor.close()
        async with database.connection() as connection:
            await connection.execute(f"DROP ROLE {role}")


def test_a_model_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordllama, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"mailyard\[semantic\]"):
        WordLlama()
