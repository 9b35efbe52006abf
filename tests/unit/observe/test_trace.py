"""Marks: how a place in a trace travels in a job, and what it costs who does not trace."""

import asyncio
import timeit
from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailyard.observe import trace
from mailyard.queue.job import NewJob

MARK = bytes(range(1, 25)) + b"\x01"


class FakeSpan:
    def __init__(self) -> None:
        self.mark = MARK

    def end(self, error: str = "", name: str = "", **attributes: trace.Value) -> None:
        return


class FakeTracer:
    def begin(
        self,
        name: str,
        kind: trace.Kind,
        parent: bytes,
        attributes: Mapping[str, trace.Value],
    ) -> FakeSpan:
        return FakeSpan()

    async def close(self) -> None:
        return


@pytest.fixture
def tracing() -> Iterator[None]:
    trace.use(FakeTracer())
    yield
    trace.use(None)


@given(st.integers(0, 40), st.binary(max_size=200))
def test_a_payload_comes_back_with_its_marks(count: int, payload: bytes) -> None:
    stored = trace.packed(MARK * count, payload)
    if count:
        assert trace.unpacked(stored) == (payload, MARK * min(count, trace.MARKS_MAX))
    else:
        assert stored is payload


@given(st.binary(max_size=60))
def test_a_payload_without_marks_is_as_it_was(payload: bytes) -> None:
    if not payload.startswith(b"\0mtrace\x01"):
        assert trace.unpacked(payload) == (payload, b"")


@pytest.mark.parametrize(
    ("header", "good"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", True),
        (b"00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        (b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b71692033-0101", False),
        (b"x" * 60, False),
        (b"", False),
        (None, False),
    ],
)
def test_the_header_of_a_caller(header: bytes | None, good: bool) -> None:
    mark = trace.mark_of(header)
    assert (len(mark) == trace.MARK_BYTES) is good
    if good:
        assert mark.hex().startswith("0af7651916cd43dd8448eb211c80319cb7ad6b7169203331")


async def test_a_job_follows_from_where_it_is_made(tracing: None) -> None:
    late: list[bytes] = []

    async def goes_on_for_ever() -> None:
        await asyncio.sleep(0.01)
        late.append(NewJob("q", "k", b"").trace)

    with trace.within(MARK):
        assert NewJob("q", "k", b"").trace == MARK
        task = asyncio.create_task(goes_on_for_ever())
    assert NewJob("q", "k", b"").trace == b""
    await task
    assert late == [b""]


def test_who_does_not_trace_carries_nothing_and_pays_a_fraction_of_a_microsecond() -> None:
    with trace.within(MARK):
        assert trace.begin("x", trace.SERVER) is None
        job = NewJob("q", "k", b"payload")
    assert job.trace == b"" and job.stored is job.payload
    each_s = min(timeit.repeat(lambda: trace.unpacked(b"payload"), number=10_000, repeat=5)) / 1e4
    assert each_s < 5e-6
