"""Rewritten senders: the form of SRS, read back only by who wrote them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailyard.core.ids import uuid7
from mailyard.sending.compose import Composed
from mailyard.sending.errand import Errand, OpenDelivery
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.srs import MAX_AGE_DAYS, SenderRewriting, looks_rewritten

KEY, OLD_KEY, OTHER_KEY = b"k" * 32, b"o" * 32, b"x" * 32
AT = datetime(2026, 3, 1, 23, 59, 59, 999_000, tzinfo=UTC)
ID = uuid7(int(AT.timestamp() * 1000))
OURS = SenderRewriting([KEY, OLD_KEY])


def _local(address: str | None) -> str:
    assert address is not None
    return address.partition("@")[0]


def test_a_sender_is_rewritten_in_the_form_of_srs_and_read_back() -> None:
    written = OURS.rewritten(ID, "Ada.L@peer.example", "back.example")
    assert written is not None and looks_rewritten(written)
    label, _, _, domain, local = _local(written).split("=")
    assert (label, domain, local) == ("SRS0", "peer.example", "Ada.L")
    assert written.endswith("@back.example")
    for as_peers_write_it in (written, written.lower(), written.upper()):
        read = OURS.read(as_peers_write_it, AT)
        assert read is not None and read.sender == "ada.l@peer.example"
        assert read.is_of(ID) and not read.is_of(UUID(int=ID.int ^ 1))
        assert not read.is_of(uuid7(int(AT.timestamp() * 1000) + 1))


def test_who_was_rewritten_before_becomes_srs1_and_addresses_grow_no_more() -> None:
    first = "SRS0=aB3=4X=origin.example=ada@first.example"
    second = OURS.rewritten(ID, first, "second.example")
    assert second is not None
    assert _local(second).startswith("SRS1=") and "=first.example==aB3=4X=" in second
    read = OURS.read(second, AT)
    assert read is not None and read.sender == first.lower()
    elsewhere = SenderRewriting([OTHER_KEY])
    third = elsewhere.rewritten(ID, second, "third.example")
    assert third is not None and "=first.example==aB3=4X=" in third
    assert len(_local(third)) == len(_local(second))
    read = elsewhere.read(third, AT)
    # Straight back to who rewrote it first, past everybody in between.
    assert read is not None and read.sender == first.lower()


def test_what_does_not_fit_keeps_the_deliverys_own_return_path() -> None:
    paths = ReturnPaths(domain="back.example", keys=[KEY])
    long = "bounces-12345678-ada=customer.example@em1234.provider.example"
    for sender in (long, '"quoted local"@peer.example', "ada@[192.0.2.1]", "ünïcode@peer.example"):
        assert OURS.rewritten(ID, sender, "back.example") is None
        path = paths.rewritten_path(ID, "you@next.example", sender)
        assert paths.delivery_of(path) == ID
    fits = paths.rewritten_path(ID, "you@next.example", "ada@peer.example")
    assert fits.startswith("SRS0=")
    at_home = ReturnPaths(domain="localhost", keys=[KEY])
    assert at_home.rewritten_path(ID, "you@next.example", "a@b.example") == "a@b.example"


def test_a_forged_or_old_one_is_nobodys() -> None:
    written = OURS.rewritten(ID, "ada@peer.example", "back.example")
    assert written is not None
    for forged in (
        written.replace("ada@", "eve@"),
        written.replace("peer", "evil"),
        written.replace(written[5:10], "aaaaa"),
        "SRS0=x=y=z@back.example",
        "SRS0@back.example",
    ):
        assert OURS.read(forged, AT) is None, forged
    assert SenderRewriting([OTHER_KEY]).read(written, AT) is None
    rotated = SenderRewriting([OTHER_KEY, KEY])
    assert rotated.read(written, AT) is not None, "a key that was first before is honoured"
    assert OURS.read(written, AT + timedelta(days=MAX_AGE_DAYS)) is not None
    assert OURS.read(written, AT + timedelta(days=MAX_AGE_DAYS + 1)) is None
    assert OURS.read(written, AT - timedelta(hours=1)) is not None, "a clock that is behind"
    assert OURS.read(written, AT - timedelta(days=2)) is None


def test_mail_that_is_sent_on_leaves_rewritten_and_no_other_does() -> None:
    paths = ReturnPaths(domain="back.example", keys=[KEY])
    mail = Composed(b"Subject: x\r\n\r\nx\r\n", False, False)
    job: Any = None  # nothing here asks it
    for kind, domain, start in (
        ("forward", "", "SRS0="),
        ("forward", "bounces.shop.example", "SRS0="),
        ("", "", "b_"),
    ):
        errand = Errand(
            job, ID, ID, AT, mail=mail, reverse_path="ada@peer.example", return_domain=domain
        )
        [sent] = errand.mails([OpenDelivery(ID, "you@next.example", False, kind)], paths)
        assert sent.reverse_path.startswith(start)
        assert sent.reverse_path.endswith("@" + (domain or "back.example"))
    bounce = Errand(job, ID, ID, AT, mail=mail, reverse_path="")
    [sent] = bounce.mails([OpenDelivery(ID, "you@next.example", False, "forward")], paths)
    assert sent.reverse_path == "", "the null sender stays (RFC 5321 section 4.5.5)"


@pytest.mark.parametrize("local", ["a=b", "a+b=c", "srs", "srs0", "a-b_c.d", "SRS2=x"])
def test_odd_senders_come_back_as_they_were(local: str) -> None:
    written = OURS.rewritten(ID, f"{local}@peer.example", "back.example")
    assert written is not None
    read = OURS.read(written, AT)
    assert read is not None and read.sender == f"{local}@peer.example".lower()


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_nothing_that_a_peer_writes_raises(text: str) -> None:
    for address in (text, f"{text}@back.example", f"SRS0={text}", f"SRS1={text}@x.example"):
        OURS.read(address, AT)
        OURS.rewritten(ID, address, "back.example")
        looks_rewritten(address)
