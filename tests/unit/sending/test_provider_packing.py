"""How waiting mails become requests."""

from datetime import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core import ids
from mailyard.sending.transport import Outgoing, Recipient
from mailyard.sending.transports.packing import Packing, Piece, halved
from mailyard.sending.transports.vendor import Item, Request, Verdict


class Small:
    """A vendor with small limits."""

    mails_per_request = 3
    recipients_per_mail = 4
    recipients_per_request = 5
    request_bytes = 40
    counts_recipients = False
    repeatable = False

    def item(self, mail: Outgoing) -> Item:
        raise NotImplementedError

    def request(self, items: Any, now: datetime) -> Request:
        raise NotImplementedError

    def accepted(self, items: Any, answer: Any) -> list[list[Verdict]]:
        raise NotImplementedError

    def refused(self, answer: Any, now: datetime) -> Verdict:
        raise NotImplementedError


def piece(lot: bytes | None, size_bytes: int, recipients: int) -> Piece:
    people = tuple(Recipient(ids.uuid7(), "a@x.example") for _ in range(recipients))
    mail = Outgoing("", people, b"", False, False)
    return Piece(Item(mail, b"x" * size_bytes, lot), lambda handoff: None)


pieces = st.builds(
    piece,
    lot=st.sampled_from([None, b"", b"one", b"another"]),
    size_bytes=st.integers(1, 40),
    recipients=st.integers(1, 4),
)


@settings(max_examples=200)
@given(st.lists(pieces, max_size=30))
def test_every_piece_goes_once_and_no_request_is_above_a_limit(waiting: list[Piece]) -> None:
    packing = Packing(Small())
    for one in waiting:
        packing.add(one)
    gone: list[Piece] = []
    while packing:
        batch = packing.take()
        gone += batch
        assert len({one.item.lot for one in batch}) == 1
        if len(batch) > 1:
            lot = batch[0].item.lot
            assert lot is not None
            assert len(batch) <= 3
            assert sum(len(one.mail.recipients) for one in batch) <= 5
            commas = len(batch) - 1
            assert sum(one.item.size_bytes for one in batch) + commas + len(lot) <= 40
    assert sorted(map(id, gone)) == sorted(map(id, waiting))


@settings(max_examples=100)
@given(st.lists(pieces, max_size=30))
def test_those_of_one_lot_keep_their_order(waiting: list[Piece]) -> None:
    packing = Packing(Small())
    for one in waiting:
        packing.add(one)
    gone: list[Piece] = []
    while packing:
        gone += packing.take()
    for lot in (None, b"", b"one", b"another"):
        assert [id(one) for one in gone if one.item.lot == lot] == [
            id(one) for one in waiting if one.item.lot == lot
        ]


def test_mails_of_one_lot_share_a_request_although_others_stand_between_them() -> None:
    packing = Packing(Small())
    mixed = [piece(b"one", 1, 1), piece(b"another", 1, 1), piece(b"one", 1, 1)]
    for one in mixed:
        packing.add(one)
    assert packing.take() == [mixed[0], mixed[2]]
    assert packing.take() == [mixed[1]]


def test_a_given_request_goes_before_everything_and_as_it_stands() -> None:
    packing = Packing(Small())
    packing.add(piece(b"one", 1, 1))
    given_ones = [[piece(b"one", 40, 1), piece(None, 40, 4)], [piece(b"one", 1, 1)]]
    packing.add_batches_first(given_ones)
    assert [packing.take(), packing.take()] == given_ones
    assert len(packing.take()) == 1


def test_halves_have_everybody_once_in_order() -> None:
    mail = piece(None, 1, 3).mail
    one, two = halved(mail)
    assert one.recipients + two.recipients == mail.recipients
    assert one.recipients and two.recipients
