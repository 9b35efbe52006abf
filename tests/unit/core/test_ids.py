"""Ids: UUIDv7 that sort by their making, TypeIDs that come back as they went."""

import copy
import hmac
import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from uuid import RFC_4122, UUID

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mailyard.core import ids
from mailyard.core.errors import InvalidInput

any_uuid = st.uuids(allow_nil=True)


def test_ids_sort_in_the_order_of_their_making() -> None:
    made = []
    for _ in range(2_000):
        made.append(ids.uuid7())
        ids.uuid7()  # some time passes
    assert sorted(made, key=lambda one: one.int >> 64) == made
    assert len(set(made)) == len(made)


def test_an_id_is_a_version_7_of_its_instant() -> None:
    made = ids.uuid7(1_700_000_000_123)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert ids.unix_ms_of(made) == 1_700_000_000_123
    assert ids.time_of(made) == datetime(2023, 11, 14, 22, 13, 20, 123000, tzinfo=UTC)


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    def tell(answer: Connection) -> None:
        answer.send([ids.uuid7(0).bytes[-8:] for _ in range(100)])

    ids.uuid7()  # the parent has random bits in stock when it forks
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=tell, args=(theirs,))
    child.start()
    of_the_child = ours.recv()
    child.join()
    of_the_parent = {ids.uuid7(0).bytes[-8:] for _ in range(2_000)}
    assert len(set(of_the_child)) == 100
    assert of_the_parent.isdisjoint(of_the_child)


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(lambda _: [ids.uuid7(0) for _ in range(3_000)], range(8)))
    assert len({one for some in made for one in some}) == 24_000


def test_random_bits_stand_wherever_the_version_and_the_variant_leave_room() -> None:
    made = [ids.uuid7(0).int for _ in range(2_000)]
    ever, always = 0, -1
    for one in made:
        ever, always = ever | one, always & one
    assert ever == (1 << 80) - 1 - (8 << 76) - (1 << 62)
    assert always == (7 << 76) | (2 << 62)


def test_an_id_is_a_uuid_like_any_other() -> None:
    made = ids.uuid7()
    twin = UUID(int=made.int)
    assert made == twin and hash(made) == hash(twin) and repr(made) == repr(twin)
    assert pickle.loads(pickle.dumps(made)) == made == copy.deepcopy(made)
    assert made.is_safe is twin.is_safe


@given(any_uuid, st.sampled_from([ids.DELIVERY, ids.INBOX, ids.CAMPAIGN]))
def test_a_type_id_comes_back_as_it_went(identifier: UUID, prefix: str) -> None:
    text = ids.type_id(prefix, identifier)
    assert len(text) == len(prefix) + 27
    assert ids.parse_type_id(prefix, text) == identifier


@pytest.mark.parametrize(
    "tail", ["8" + 25 * "z", 26 * "i", 26 * "٣", "0" * 24 + "_0", " " + 25 * "0"]
)
def test_what_only_looks_like_a_number_is_refused(tail: str) -> None:
    with pytest.raises(InvalidInput):
        ids.parse_type_id(ids.DELIVERY, "dlv_" + tail)


@given(st.text(max_size=40))
def test_what_is_no_type_id_is_refused_by_field(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        ids.parse_type_id(ids.DELIVERY, text, "delivery")
    assert refused.value.field == "delivery"


def test_an_id_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInput):
        ids.parse_type_id(ids.DELIVERY, ids.type_id(ids.INBOX, ids.uuid7()))


def test_the_same_name_has_the_same_id_under_a_key_and_an_instant() -> None:
    one = ids.deterministic_uuid7(1_700_000_000_000, b"campaign", b"ada@example.org")
    assert one == ids.deterministic_uuid7(1_700_000_000_000, b"campaign", b"ada@example.org")
    assert one != ids.deterministic_uuid7(1_700_000_000_000, b"other", b"ada@example.org")
    assert one != ids.deterministic_uuid7(1_700_000_000_000, b"campaign", b"bob@example.org")
    assert ids.unix_ms_of(one) == 1_700_000_000_000


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_what_a_deterministic_id_holds_is_an_hmac_as_the_standard_library_makes_it(
    key: bytes, name: bytes
) -> None:
    tail = int.from_bytes(hmac.digest(key, name, "sha256")[:10], "big")
    made = ids.deterministic_uuid7(1_700_000_000_000, key, name)
    unfixed = ~((0xF << 76) | (0x3 << 62)) & ((1 << 80) - 1)
    assert made.int & unfixed == tail & unfixed
    assert ids.unix_ms_of(made) == 1_700_000_000_000


@given(st.binary(max_size=100), st.binary(max_size=100), st.integers(0, 2**32))
def test_the_group_of_a_deterministic_id_stands_before_its_hmac(
    key: bytes, name: bytes, group: int
) -> None:
    made = ids.deterministic_uuid7(1_700_000_000_000, key, name, group)
    assert (made.version, made.variant) == (7, RFC_4122)
    assert ids.unix_ms_of(made) == 1_700_000_000_000
    assert (made.int >> 64 & 0xFFF) << 8 | (made.int >> 54 & 0xFF) == group % 2**20
    tail = int.from_bytes(hmac.digest(key, name, "sha256")[:10], "big")
    assert made.int & (1 << 54) - 1 == tail & (1 << 54) - 1


@given(st.integers(0, 2**20 - 1), st.integers(0, 2**20 - 1), st.binary(), st.binary())
def test_deterministic_ids_sort_by_their_group(
    one: int, other: int, name: bytes, another: bytes
) -> None:
    assume(one < other)
    first = ids.deterministic_uuid7(1_700_000_000_000, b"campaign", name, one)
    assert first < ids.deterministic_uuid7(1_700_000_000_000, b"campaign", another, other)


def test_the_lowest_id_of_an_instant_bounds_it_from_below() -> None:
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    bound = ids.lowest_at(moment)
    unix_ms = int(moment.timestamp() * 1000)
    assert ids.uuid7(unix_ms - 1) < bound <= ids.uuid7(unix_ms)
