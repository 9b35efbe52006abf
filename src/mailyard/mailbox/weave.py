"""Threads out of ties: which thread each new mail of one mailbox is of, and which become one.

Pure. The mails of a batch, what they are tied to and the threads found behind those ties are nodes;
ties are edges; a connected set is a thread. Adding mails only ever joins sets, so the order does
not matter (mailbox/strand.py says what a tie is).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

from mailyard.mailbox.strand import Strand

_Node = int | UUID  # a tie; a message that is new, or a thread that was found


class Found(NamedTuple):
    """What lies behind a tie already. `written`: the tie has a row of its own (`thread_key`), and
    is not only a line's.
    """

    thread_id: UUID
    muted: bool
    written: bool


class NewMail(NamedTuple):
    """A mail to be woven in."""

    message_id: UUID
    strand: Strand


class Woven(NamedTuple):
    """`threads` and `muted`: of each new mail, in order. `ties`: to be written, with their thread
    and whether that is muted. `joined`: sets of threads that are one from now on, muted or not.
    """

    threads: list[UUID]
    muted: list[bool]
    ties: list[tuple[int, UUID, bool]]
    joined: list[tuple[frozenset[UUID], bool]]


def weave(mails: Sequence[NewMail], found: Mapping[int, Sequence[Found]]) -> Woven:
    """The threads of new mails of one mailbox; `found` is what their ties led to.

    Where threads become one, the mails of all of them are given the lowest id among them: the
    caller chooses the one that stays (`joined`) and puts it in the place of all.
    """
    if len(mails) == 1 and not found:
        return _alone(mails[0])
    answered = {tie for mail in mails for tie in mail.strand.answers}
    sets = _Sets()
    for message_id, strand in mails:
        sets.add(message_id)
        for tie in _ties(strand, answered, found):
            sets.join(message_id, tie)
            for behind in found.get(tie, ()):
                sets.join(tie, behind.thread_id)
    known: dict[_Node, set[UUID]] = {}
    is_muted: set[_Node] = set()
    for behinds in found.values():
        for behind in behinds:
            if behind.thread_id in sets:
                root = sets.root(behind.thread_id)
                known.setdefault(root, set()).add(behind.thread_id)
                if behind.muted:
                    is_muted.add(root)
    thread_of: dict[_Node, UUID] = {root: min(threads) for root, threads in known.items()}
    roots = [sets.root(mail.message_id) for mail in mails]
    for mail, root in sorted(zip(mails, roots, strict=True), key=lambda pair: pair[0].message_id):
        thread_of.setdefault(root, mail.message_id)
    return Woven(
        threads=[thread_of[root] for root in roots],
        muted=[root in is_muted for root in roots],
        ties=[
            (tie, thread_of[root], root in is_muted)
            for tie, root in _unwritten(mails, found, sets).items()
        ],
        joined=[
            (frozenset(threads), root in is_muted)
            for root, threads in known.items()
            if len(threads) > 1
        ],
    )


def _alone(mail: NewMail) -> Woven:
    """One mail and nothing behind its ties: the most frequent case by far."""
    message_id, strand = mail
    ties = [(tie, message_id, False) for tie in (*strand.named, *strand.answers)]
    return Woven([message_id], [False], ties, [])


def _ties(strand: Strand, answered: set[int], found: Mapping[int, Sequence[Found]]) -> list[int]:
    """The ties that hold: that of a subject only where an answer looks for it."""
    ties = [*strand.named, *strand.answers]
    if strand.own is not None:
        ties.append(strand.own)
    if strand.subject is not None and (strand.subject in answered or strand.subject in found):
        ties.append(strand.subject)
    return ties


def _unwritten(
    mails: Sequence[NewMail], found: Mapping[int, Sequence[Found]], sets: "_Sets"
) -> dict[int, _Node]:
    """The ties that need a row, and their sets: what is named and not here, what answers seek."""
    here = {mail.strand.own for mail in mails}
    ties: dict[int, _Node] = {}
    for mail in mails:
        for tie in mail.strand.named:
            if tie not in here and tie not in found:
                ties[tie] = sets.root(tie)
        for tie in mail.strand.answers:
            if not any(behind.written for behind in found.get(tie, ())):
                ties[tie] = sets.root(tie)
    return ties


class _Sets:
    """Disjoint sets, with path halving."""

    __slots__ = ("_above",)

    def __init__(self) -> None:
        self._above: dict[_Node, _Node] = {}

    def __contains__(self, node: _Node) -> bool:
        return node in self._above

    def add(self, node: _Node) -> None:
        self._above.setdefault(node, node)

    def root(self, node: _Node) -> _Node:
        above = self._above
        while above[node] != node:
            above[node] = above[above[node]]
            node = above[node]
        return node

    def join(self, one: _Node, other: _Node) -> None:
        self.add(one)
        self.add(other)
        self._above[self.root(one)] = self.root(other)
