"""A job as bytes of Kafka's log, and where it goes."""

from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from mailyard.queue.engines.kafka.placing import key_of, partition_of, spread_of
from mailyard.queue.engines.kafka.record import (
    BATCH_RECORDS,
    DIRECT,
    batch_of,
    came,
    decode,
    digest,
    encode,
    ranges_text,
    workspace_of,
)
from mailyard.queue.job import NewJob

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.mark.parametrize("workspace_id", [None, UUID(int=7)])
def test_a_job_is_read_as_it_was_written(workspace_id: UUID | None) -> None:
    job = NewJob("email-send", "deliver", b"\x00\xff", workspace_id, max_attempts=7)
    record = decode(DIRECT + encode(job, 4711, AT))
    assert (record.id, record.kind, record.payload) == (4711, "deliver", b"\x00\xff")
    assert (record.max_attempts, record.enqueued_at) == (7, AT)
    assert workspace_of(record) == workspace_id


def test_a_record_says_how_it_came() -> None:
    batch, number = 1_795_473_595_137, BATCH_RECORDS - 1
    assert batch_of(came(batch, number) + b"rest") == (batch, number)
    assert batch_of(DIRECT + b"rest")[0] == 0
    assert len(came((1 << 43) - 1, 0)) == 8  # as a signed number too, until the year 2248


def test_what_nobody_of_ours_wrote_is_said_to_be_so() -> None:
    for value in (b"", b"short", DIRECT + b"\xc1", DIRECT + b"\x93\x01\xa1k\xc0"):
        with pytest.raises(ValueError):
            decode(value)


def test_payloads_of_different_workspaces_are_told_apart() -> None:
    one, two = uuid4().bytes, uuid4().bytes
    seen = {digest(w, p) for w in (None, one, two) for p in (b"", b"a", b"b", one)}
    assert len(seen) == 12
    assert all(len(each) == 8 for each in seen)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ([], "{}"),
        ([0], "{[0,1)}"),
        ([0, 1, 2], "{[0,3)}"),
        ([0, 2, 3, 9], "{[0,1),[2,4),[9,10)}"),
    ],
)
def test_numbers_are_written_as_ranges(numbers: list[int], text: str) -> None:
    assert ranges_text(numbers) == text


def test_a_tenant_has_a_share_of_the_partitions_and_uses_all_of_it() -> None:
    key = key_of(uuid4())
    for partitions, share in ((1, 1), (20, 1), (100, 8), (1200, 100)):
        used = {partition_of(key, batch, partitions) for batch in range(1_000)}
        assert len(used) == share == spread_of(partitions)
        assert all(0 <= part < partitions for part in used)


def test_tenants_are_spread_over_all_partitions() -> None:
    used = {partition_of(key_of(UUID(int=n)), 0, 20) for n in range(1_000)}
    assert used == set(range(20))
