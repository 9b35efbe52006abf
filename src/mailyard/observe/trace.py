"""Traces: who asked for what, over processes and jobs. Off, unless a tracer is there (`use`).

A place in a trace is a *mark*, 25 bytes: the trace's id, the span's and the flags, as W3C Trace
Context has them. What stands for several mails (a job that takes in what arrived together) has the
marks of all of them, one after the other. Marks travel in a job's payload, before what it says, so
that every engine of the queue carries them and none knows of them.

    api / smtp      span of the request  ── mark ──> job (`NewJob.trace`)
    worker          span of the job, one a mark  ──> span of the SMTP conversation

A mark that is not sampled is not carried. Who does not trace carries nothing and pays a look at a
global; it still understands the jobs of who does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, Protocol

MARK_BYTES = 25
MARKS_MAX = 16  # of one job: of what arrived together more are not followed
Kind = Literal["server", "client", "consumer"]
SERVER: Kind = "server"
CLIENT: Kind = "client"
CONSUMER: Kind = "consumer"
Value = str | int | float | bool
_MAGIC = b"\0mtrace\x01"  # no payload of ours begins so
_HEAD = len(_MAGIC) + 1


class Span(Protocol):
    """Something that takes time. `mark`: for what follows from it; empty: it is not sampled."""

    mark: bytes

    def end(self, error: str = "", name: str = "", **attributes: Value) -> None:
        """It is over. `error`: what went wrong, a name and no text. `name`: if known better now."""
        ...


class Tracer(Protocol):
    """What keeps spans and sends them somewhere."""

    def begin(self, name: str, kind: Kind, parent: bytes, attributes: Mapping[str, Value]) -> Span:
        """A span under the mark `parent`, or a trace's first."""
        ...

    async def close(self) -> None:
        """Send what there is."""
        ...


class _Here:
    """Where a task is in a trace. Emptied at its end: tasks that were started on the way and go on
    for ever are no part of it."""

    __slots__ = ("marks",)

    def __init__(self, marks: bytes) -> None:
        self.marks = marks


_tracer: Tracer | None = None
_here: ContextVar[_Here | None] = ContextVar("trace", default=None)


def use(tracer: Tracer | None) -> None:
    """Trace in this process from now on, or no more."""
    global _tracer
    _tracer = tracer


def on() -> bool:
    """Whether this process traces."""
    return _tracer is not None


def begin(name: str, kind: Kind, parent: bytes = b"", **attributes: Value) -> Span | None:
    """A span, or None where nobody traces."""
    return None if _tracer is None else _tracer.begin(name, kind, parent, attributes)


@contextmanager
def within(marks: bytes, *, lasting: bool = False) -> Iterator[None]:
    """What is enqueued in this block follows from `marks`; `lasting`: also what is enqueued by the
    tasks that it starts, after its end."""
    here = _Here(marks)
    token = _here.set(here)
    try:
        yield
    finally:
        if not lasting:
            here.marks = b""
        _here.reset(token)


def marks() -> bytes:
    """What is done here follows from these."""
    if _tracer is None:
        return b""
    here = _here.get()
    return b"" if here is None else here.marks


def each(marks: bytes) -> Iterator[bytes]:
    """One mark after the other."""
    for at in range(0, len(marks), MARK_BYTES):
        yield marks[at : at + MARK_BYTES]


def packed(marks: bytes, payload: bytes) -> bytes:
    """A payload that carries `marks`."""
    if not marks:
        return payload
    marks = marks[: MARKS_MAX * MARK_BYTES]
    return _MAGIC + bytes((len(marks) // MARK_BYTES,)) + marks + payload


def unpacked(stored: bytes) -> tuple[bytes, bytes]:
    """(payload, marks) of what `packed` made; anything else carries none."""
    if stored[:1] != b"\0" or not stored.startswith(_MAGIC):
        return stored, b""
    end = _HEAD + stored[_HEAD - 1] * MARK_BYTES
    return stored[end:], stored[_HEAD:end]


def mark_of(traceparent: bytes | None) -> bytes:
    """The mark of a `traceparent` header (W3C Trace Context 3.2); empty: there is no good one."""
    if traceparent is None or len(traceparent) < 55 or traceparent[:2] == b"ff":
        return b""
    try:
        version, trace, span, flags = traceparent[:55].decode("ascii").split("-")
        mark = bytes.fromhex(trace) + bytes.fromhex(span) + bytes.fromhex(flags)
    except ValueError:
        return b""
    sizes = (len(version), len(trace), len(span), len(flags))
    if sizes != (2, 32, 16, 2) or not any(mark[:16]) or not any(mark[16:24]):
        return b""
    return mark
