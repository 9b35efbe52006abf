"""Return-paths: whose bounce it is, whatever peers do to the spelling, and nobody forges one."""

from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.core import ids
from mailyard.core.errors import ConfigurationError
from mailyard.protocol.address import split_address
from mailyard.protocol.report import read_report
from mailyard.sending.return_path import ReturnPaths

OLD = bytes(range(32))
NEW = bytes(range(32, 64))
PATHS = ReturnPaths(domain="bounce.example.com", keys=[NEW])
DELIVERY = ids.uuid7()


@settings(max_examples=200)
@given(st.uuids())
def test_a_return_path_leads_back_to_its_delivery_and_fits_a_local_part(delivery: UUID) -> None:
    address = PATHS.address_for(delivery)
    local, domain = split_address(address)
    assert len(local) == 45
    assert domain == "bounce.example.com"
    assert PATHS.delivery_of(address) == delivery


def test_a_name_that_only_this_machine_knows_is_for_recipients_of_such_names() -> None:
    own = ReturnPaths(domain="returns.inbox.localhost", keys=[NEW])
    sender = "shop@shop.example"
    assert own.reverse_path(DELIVERY, "ada@example.com", sender) == sender
    local = own.reverse_path(DELIVERY, "box@Inbox.LOCALHOST", sender)
    assert own.delivery_of(local) == DELIVERY
    named = own.reverse_path(DELIVERY, "ada@example.com", sender, "bounce.shop.example")
    assert named.endswith("@bounce.shop.example")
    assert PATHS.delivery_of(PATHS.reverse_path(DELIVERY, "ada@example.com", sender)) == DELIVERY


def test_peers_may_change_the_case() -> None:
    assert PATHS.delivery_of(PATHS.address_for(DELIVERY).upper()) == DELIVERY


def test_a_workspace_may_use_its_own_name() -> None:
    address = PATHS.address_for(DELIVERY, "mail.shop.example")
    assert address.endswith("@mail.shop.example")
    assert PATHS.delivery_of(address) == DELIVERY


@pytest.mark.parametrize("wrapping", ["prvs=1234abcdef={}", "SRS0=HHH=TT=bounce.example.com={}"])
def test_it_is_found_inside_what_forwarders_put_around_it(wrapping: str) -> None:
    local = PATHS.address_for(DELIVERY).partition("@")[0]
    assert PATHS.delivery_of(wrapping.format(local) + "@forwarder.example") == DELIVERY


def test_every_changed_letter_of_the_mac_is_noticed() -> None:
    local, domain = PATHS.address_for(DELIVERY).split("@")
    for position in range(len(local) - 16, len(local)):
        other = "a" if local[position] != "a" else "b"
        forged = f"{local[:position]}{other}{local[position + 1 :]}@{domain}"
        assert PATHS.delivery_of(forged) is None


def test_the_mac_of_one_delivery_is_none_of_another() -> None:
    mine = PATHS.address_for(DELIVERY).partition("@")[0]
    other = PATHS.address_for(ids.uuid7()).partition("@")[0]
    assert PATHS.delivery_of(f"{other[:29]}{mine[29:]}@bounce.example.com") is None


def test_a_new_key_signs_and_the_one_before_is_honoured() -> None:
    before = ReturnPaths(domain="bounce.example.com", keys=[OLD])
    both = ReturnPaths(domain="bounce.example.com", keys=[NEW, OLD])
    assert both.address_for(DELIVERY) == PATHS.address_for(DELIVERY)
    assert both.delivery_of(before.address_for(DELIVERY)) == DELIVERY
    assert PATHS.delivery_of(before.address_for(DELIVERY)) is None


@settings(max_examples=200)
@given(st.text(max_size=400))
def test_no_text_is_taken_for_one_and_none_raises(text: str) -> None:
    assert PATHS.delivery_of(text) is None


def test_the_first_of_several_addresses_that_is_ours_counts() -> None:
    ours = PATHS.address_for(DELIVERY)
    assert PATHS.find(["postmaster@example.com", ours]) == DELIVERY
    assert PATHS.find(["postmaster@example.com"]) is None


@pytest.mark.parametrize("keys", [[], [b"short"]])
def test_keys_that_cannot_be_used_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(ConfigurationError):
        ReturnPaths(domain="bounce.example.com", keys=keys)


def test_a_bounce_leads_to_its_delivery_by_where_it_came_or_by_what_it_returns() -> None:
    ours = PATHS.address_for(DELIVERY).upper()
    to_us = f"From: MAILER-DAEMON@example.net\nTo: <{ours}>\nSubject: failure notice\n\nFailed.\n"
    assert PATHS.find(read_report(to_us.encode()).return_paths) == DELIVERY
    returned = (
        "From: MAILER-DAEMON@example.net\nTo: abuse@example.com\nSubject: failure notice\n\n"
        "Could not be delivered to <ada@example.org>\n\n--- Original message follows.\n\n"
        f"Return-Path: <{ours}>\nReceived: from a by b\nSubject: Hello\n\nHello\n"
    )
    assert PATHS.find(read_report(returned.encode()).return_paths) == DELIVERY
