"""The listener over several clusters: who is unknown is refused for good only when all have said so
by a directory that is not old."""

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

import pytest

from mailyard.core.errors import Unavailable
from mailyard.protocol.smtp.envelope import Envelope, Peer
from mailyard.protocol.smtp.reply import Reply
from mailyard.receiving.accept import MOVING, NO_SUCH_INBOX, RECIPIENT_OK, Acceptor
from mailyard.receiving.commit import TRY_LATER
from mailyard.receiving.shards import Naming, ShardedAcceptor, residence
from mailyard.storage.directory import Directory, Place

PEER = Peer(address="192.0.2.1", port=25, hello="peer", esmtp=True, tls=False)
STORED = Reply(250, "2.0.0", "Ok")


class Cluster:
    """Answers for its addresses; what it stores is kept."""

    def __init__(self, **replies: Reply) -> None:
        self.replies = replies
        self.stored: list[tuple[str, ...]] = []
        self.store_reply = STORED
        self.asked = 0

    def accept_recipient(self, _peer: Peer, _path: str, address: str) -> Reply:
        self.asked += 1
        return self.replies.get(address.partition("@")[0], NO_SUCH_INBOX)

    def accept_message(self, envelope: Envelope, _content: bytes) -> Reply:
        if self.store_reply.code == 250:
            self.stored.append(envelope.recipients)
        return self.store_reply


class Book:
    """A directory that is as old as it is told."""

    def __init__(self) -> None:
        self.fresh, self.looks, self.mends = True, 0, True
        self.places: dict[UUID, Place] = {}

    async def look(self) -> None:
        self.looks += 1
        self.fresh = self.mends

    def known(self, workspace_id: UUID) -> Place:
        return self.places.get(workspace_id, Place("home"))


@pytest.fixture
def book() -> Book:
    return Book()


def over(
    book: Book, clusters: Mapping[str, Cluster | None], naming: Naming | None = None
) -> ShardedAcceptor:
    def acceptor_of(name: str) -> Acceptor:
        found = clusters[name]
        if found is None:
            raise Unavailable(f"{name} is away")
        return cast(Any, found)

    async def nowhere(_: str) -> None:
        return None

    return ShardedAcceptor(
        acceptor_of=acceptor_of,
        shards=lambda: {name: one is not None for name, one in clusters.items()},
        directory=cast(Directory, book),
        returning=nowhere,
        naming=naming or nowhere,
    )


def mail(*recipients: str) -> Envelope:
    return Envelope(PEER, "a@b", recipients, None, True, False)


async def test_a_recipient_is_taken_where_he_is_and_asked_for_there_the_next_time(
    book: Book,
) -> None:
    home, east = Cluster(), Cluster(ada=RECIPIENT_OK)
    acceptor = over(book, {"home": home, "east": east})
    for _ in range(3):
        assert await acceptor.accept_recipient(PEER, "", "ada@x") is RECIPIENT_OK
    assert (home.asked, east.asked) == (1, 3)
    assert await acceptor.accept_message(mail("ada@x"), b"") is STORED
    assert (home.stored, east.stored) == ([], [("ada@x",)])


async def test_whom_the_directory_names_is_asked_for_in_one_cluster(book: Book) -> None:
    home, east, west = Cluster(), Cluster(ada=RECIPIENT_OK), Cluster(eve=RECIPIENT_OK)

    async def naming(address: str) -> tuple[str, bool] | None:
        name, _, domain = address.partition("@")
        if domain == "own":
            return "east", True
        return ("east", False) if name in ("ada", "eve") else None

    acceptor = over(book, {"home": home, "east": east, "west": west}, naming)
    assert await acceptor.accept_recipient(PEER, "", "ada@x") is RECIPIENT_OK
    assert await acceptor.accept_recipient(PEER, "", "stranger@own") is NO_SUCH_INBOX
    assert (home.asked, east.asked, west.asked) == (0, 2, 0)
    # A name whose cluster does not have it (any more) is looked for before it is refused for good.
    assert await acceptor.accept_recipient(PEER, "", "eve@x") is RECIPIENT_OK
    assert (home.asked, west.asked) == (1, 1)


async def test_without_the_directory_of_names_all_clusters_are_asked(book: Book) -> None:
    async def away(_: str) -> tuple[str, bool] | None:
        raise Unavailable("home is away")

    east = Cluster(ada=RECIPIENT_OK)
    acceptor = over(book, {"home": Cluster(), "east": east}, away)
    assert await acceptor.accept_recipient(PEER, "", "ada@x") is RECIPIENT_OK


async def test_nobody_is_unknown_while_a_cluster_is_away(book: Book) -> None:
    acceptor = over(book, {"home": Cluster(ada=RECIPIENT_OK), "east": None})
    assert await acceptor.accept_recipient(PEER, "", "bob@x") is TRY_LATER
    assert await acceptor.accept_recipient(PEER, "", "ada@x") is RECIPIENT_OK


async def test_nobody_is_unknown_by_an_old_directory(book: Book) -> None:
    acceptor = over(book, {"home": Cluster(), "east": Cluster()})
    assert await acceptor.accept_recipient(PEER, "", "bob@x") is NO_SUCH_INBOX
    book.fresh = False
    assert await acceptor.accept_recipient(PEER, "", "bob@x") is NO_SUCH_INBOX
    assert book.looks == 1
    book.fresh = book.mends = False
    assert await acceptor.accept_recipient(PEER, "", "bob@x") is TRY_LATER


async def test_a_mail_for_two_clusters_is_acknowledged_when_both_have_it(book: Book) -> None:
    home, east = Cluster(ada=RECIPIENT_OK), Cluster(bob=RECIPIENT_OK)
    acceptor = over(book, {"home": home, "east": east})
    assert await acceptor.accept_message(mail("ada@x", "bob@x"), b"") is STORED
    assert (home.stored, east.stored) == ([("ada@x",)], [("bob@x",)])
    east.store_reply = TRY_LATER
    assert await acceptor.accept_message(mail("ada@x", "bob@x"), b"") is TRY_LATER


async def test_a_workspace_that_moves_is_asked_to_come_back_and_one_elsewhere_is_not_here(
    book: Book,
) -> None:
    moving, elsewhere, here = (UUID(int=number) for number in (1, 2, 3))
    book.places = {moving: Place("east", moving=True), elsewhere: Place("west")}
    away = residence(cast(Directory, book), "home")
    assert (away(moving), away(elsewhere), away(here)) == (MOVING, NO_SUCH_INBOX, None)
