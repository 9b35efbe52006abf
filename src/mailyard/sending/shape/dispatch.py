"""Whose turn is it: mails of many sites wait in one process, and no site holds up another.

Operations and what they cost (S: sites with waiting mails):

    offer    one mail into its site's line, or back to the queue with an instant   O(log S)
    take     mails that may go now, sites taking turns                             O(log S) a mail
    observe  the answer for one mail that went                                     O(rules)
    drawn    what the bucket of all workers said about a draw                      O(log S)

A site is in exactly one place: `ready` (its turn comes), `asleep` (until an instant), `full` (until
one of its mails is answered), `drawing` (until the bucket has spoken), or nowhere (it
has no line). So a site that cannot go costs nothing until its instant comes.

A line is short (LINE_MAX): this is what a process has in hand, not the queue. What a paused or
probing site would keep waiting goes back to the queue with the instant at which to come again. So
does what stands too far behind in a line that does not move (`shed`), one after another, as the
site's rate will let them.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from random import Random
from typing import Generic, TypeVar

from msgspec.structs import replace

from mailyard.sending.shape import site as machine
from mailyard.sending.shape.answer import Answer
from mailyard.sending.shape.receiver import Place
from mailyard.sending.shape.site import PRISTINE, Draw, Mode, News, Reaction, Site

LINE_MAX = 1_000  # mails of one site in one process
CROWDED_MAX = 8  # of a site whose line has been found too slow, until it is empty again
SITES_MAX = 20_000  # states that are remembered, besides those with mails in hand
TURN_MAILS = 20  # of one site before the next one's turn
HAND_BACK_S = 5.0  # who must wait longer does it in the queue, where it costs no memory
_FORGET_LOOKS_AT = 8
_CROWDED = "more wait for this site than it takes soon"
JITTER_SHARE = 0.2  # those who come back do not come in one instant

Mail = TypeVar("Mail")


@dataclass(frozen=True, slots=True)
class Turn(Generic[Mail]):
    """Mails that may go now."""

    key: str
    place: Place
    mails: list[Mail]


@dataclass(frozen=True, slots=True)
class HandedBack(Generic[Mail]):
    """Mails that go back to the queue until `until_s`, and why."""

    key: str
    mails: list[Mail]
    until_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """A draw that this site needs before it can go on."""

    key: str
    draw: Draw
    asked_at_s: float


@dataclass(slots=True)
class Taken(Generic[Mail]):
    """What `take` found to do. `leases`: sites that wait for `leased`, having no connection."""

    turns: list[Turn[Mail]] = field(default_factory=list)
    draws: list[Wanted] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)
    back: list[HandedBack[Mail]] = field(default_factory=list)


@dataclass(slots=True)
class _Desk(Generic[Mail]):
    """One site in this process. `ticket` tells a current entry of a heap from a stale one."""

    place: Place
    site: Site
    line: deque[Mail] = field(default_factory=deque)
    where: str = ""  # "", ready, asleep, full, drawing
    ticket: int = 0
    crowded: bool = False
    back_at_s: float = 0.0  # when the last of those that the line had no place for comes again


class Dispatch(Generic[Mail]):
    """The sites of one process, as seen from one source address or several. `random`: jitter.

    `leased`: the connections that a site has before `leased` was called for it: 0 where connections
    are leased, None where nobody leases them and only the limits of the site count.
    """

    def __init__(
        self,
        *,
        random: Random,
        leased: int | None = None,
        sites_max: int = SITES_MAX,
    ) -> None:
        self._random = random
        self._fresh = replace(PRISTINE, leased=leased)
        self._sites_max = sites_max
        self._desks: dict[str, _Desk[Mail]] = {}
        self._ready: deque[str] = deque()
        self._asleep: list[tuple[float, int, str]] = []
        self._tickets = 0
        self.waiting = 0

    def offer(self, now_s: float, key: str, place: Place, mail: Mail) -> HandedBack[Mail] | None:
        """Take a mail into its site's line. Handed back at once if it could only wait there."""
        desk = self._desk(now_s, key, place)
        refused = self._refused(now_s, desk)
        if refused is not None:
            return HandedBack(key, [mail], *refused)
        desk.line.append(mail)
        self.waiting += 1
        if desk.where == "":
            self._make_ready(key, desk)
        return None

    def take(self, now_s: float, room: int) -> Taken[Mail]:
        """Up to `room` mails that may go now. Draws are to be answered by `drawn`."""
        self._wake(now_s)
        taken: Taken[Mail] = Taken()
        while room > 0 and self._ready:
            key = self._ready.popleft()
            desk = self._desks.get(key)
            if desk is None or desk.where != "ready":
                continue
            desk.where = ""
            if not desk.line:
                desk.crowded = False
                continue
            room -= self._turn(now_s, key, desk, min(room, TURN_MAILS), taken)
        return taken

    def drawn(self, wanted: Wanted, wait_s: float) -> None:
        """The bucket said yes (`wait_s` 0) or not before `wait_s` seconds."""
        desk = self._desks.get(wanted.key)
        if desk is None:  # resumed meanwhile, done and forgotten
            return
        desk.site = machine.drawn(wanted.asked_at_s, desk.site, wanted.draw, wait_s)
        if desk.where == "drawing":
            self._make_ready(wanted.key, desk)

    def observe(self, now_s: float, key: str, answer: Answer) -> Reaction:
        """The answer for one mail of a turn."""
        desk = self._desks[key]
        desk.site, reaction = machine.observe(
            now_s, desk.site, desk.place.receiver, answer, self._random
        )
        self._answered(key, desk)
        return reaction

    def released(self, key: str, count: int) -> None:
        """`count` mails of a turn did not go after all; the caller still has them."""
        desk = self._desks[key]
        desk.site = machine.released(desk.site, count)
        self._answered(key, desk)

    def informed(self, now_s: float, key: str, place: Place, news: News) -> None:
        """What another process saw of a site."""
        desk = self._desk(now_s, key, place)
        desk.site = machine.informed(desk.site, news, place.receiver.limits)

    def leased(self, now_s: float, key: str, connections: int) -> HandedBack[Mail] | None:
        """How many connections this process may have to a site from now on.

        None at all while nothing is on its way: its line is handed back, because the connections
        are in the hands of other workers.
        """
        desk = self._desks.get(key)
        if desk is None:
            return None
        desk.site = replace(desk.site, leased=connections)
        if connections or desk.site.held:
            self._answered(key, desk)
            return None
        mails = list(desk.line)
        desk.line.clear()
        self.waiting -= len(mails)
        if desk.where == "full":
            desk.where = ""
        why = "other workers have all its connections"
        return HandedBack(key, mails, self._later(now_s, HAND_BACK_S), why) if mails else None

    def resumed(self, key: str) -> None:
        """A person lets a site go on."""
        desk = self._desks.get(key)
        if desk is not None:
            desk.site = machine.resumed(desk.site)
            if desk.line:
                self._make_ready(key, desk)

    def shed(self, now_s: float, key: str) -> list[HandedBack[Mail]]:
        """The line of `key` moves too slowly for the places that it takes: all but its front go
        back, and it stays short until it is empty."""
        desk = self._desks.get(key)
        if desk is None or len(desk.line) <= CROWDED_MAX:
            return []
        desk.crowded = True
        mails = [desk.line.pop() for _ in range(len(desk.line) - CROWDED_MAX)]
        self.waiting -= len(mails)
        mails.reverse()
        return [HandedBack(key, [mail], self._slot(now_s, desk), _CROWDED) for mail in mails]

    def lines(self) -> list[tuple[str, Mail]]:
        """The sites where mails wait, each with the one that has waited longest."""
        return [(key, desk.line[0]) for key, desk in self._desks.items() if desk.line]

    def emptied(self) -> list[Mail]:
        """Everything that waits in a line, which is in none any more: the process ends."""
        mails = [mail for desk in self._desks.values() for mail in desk.line]
        for desk in self._desks.values():
            desk.line.clear()
        self.waiting = 0
        return mails

    def line(self, key: str) -> int:
        """How many mails of a site wait here."""
        desk = self._desks.get(key)
        return len(desk.line) if desk else 0

    def place(self, key: str) -> Place | None:
        """The place of a key; None when it is not remembered."""
        desk = self._desks.get(key)
        return desk.place if desk else None

    def state(self, key: str) -> Site:
        """What is known of a site."""
        desk = self._desks.get(key)
        return desk.site if desk else PRISTINE

    def states(self) -> Iterable[tuple[str, Place, Site, int]]:
        """Every site that is remembered with the length of its line, for the page."""
        return ((key, one.place, one.site, len(one.line)) for key, one in self._desks.items())

    def next_at_s(self) -> float | None:
        """When to call `take` again although nothing happened; None: only after something did."""
        if self._ready:
            return 0.0
        while self._asleep and not self._is_current(self._asleep[0]):
            heappop(self._asleep)
        return self._asleep[0][0] if self._asleep else None

    # One turn ---------------------------------------------------------------------------------

    def _turn(
        self, now_s: float, key: str, desk: _Desk[Mail], most: int, taken: Taken[Mail]
    ) -> int:
        wanted = min(most, len(desk.line))
        desk.site, decision = machine.decide(
            now_s, desk.site, desk.place.receiver.limits, wanted, len(desk.line) - wanted
        )
        if decision.allowed:
            mails = [desk.line.popleft() for _ in range(decision.allowed)]
            self.waiting -= len(mails)
            taken.turns.append(Turn(key, desk.place, mails))
            desk.crowded = desk.crowded and bool(desk.line)
            if desk.line:
                self._make_ready(key, desk)
        elif decision.draw is not None:
            desk.where = "drawing"
            taken.draws.append(Wanted(key, decision.draw, now_s))
        else:
            self._hand_back(now_s, key, desk, taken)
            if desk.line and decision.until_s == inf:
                desk.where = "full"
                if desk.site.held == 0:
                    taken.leases.append(key)
            elif desk.line:
                self._sleep(key, desk, decision.until_s)
        return decision.allowed

    def _hand_back(self, now_s: float, key: str, desk: _Desk[Mail], taken: Taken[Mail]) -> None:
        """The line of a paused or probing site goes back, but for one mail to probe with."""
        blocked = self._blocked(now_s, desk)
        if blocked is None:
            return
        keep, until_s, why = blocked
        mails = [desk.line.pop() for _ in range(max(0, len(desk.line) - keep))]
        if mails:
            self.waiting -= len(mails)
            mails.reverse()
            taken.back.append(HandedBack(key, mails, until_s, why))

    def _refused(self, now_s: float, desk: _Desk[Mail]) -> tuple[float, str] | None:
        """(until when, why) a further mail would only wait in the line of `desk`."""
        blocked = self._blocked(now_s, desk)
        if blocked is not None:
            keep, until_s, why = blocked
            return (until_s, why) if len(desk.line) + desk.site.held >= keep else None
        if len(desk.line) >= (CROWDED_MAX if desk.crowded else LINE_MAX):
            return self._slot(now_s, desk), _CROWDED
        return None

    def _blocked(self, now_s: float, desk: _Desk[Mail]) -> tuple[int, float, str] | None:
        """(mails to keep, until when the others wait elsewhere, why); None: it is open."""
        mode = machine.mode_at(now_s, desk.site, desk.place.receiver.limits)
        if mode is Mode.PAUSED and desk.site.paused_until_s > now_s + HAND_BACK_S:
            return 0, self._later(now_s, desk.site.paused_until_s - now_s), desk.site.why
        if mode is Mode.PROBING:
            # Nobody waits here for a probe that is far off: whoever comes first then is it.
            wait_s = max(desk.site.probe_at_s - now_s, HAND_BACK_S)
            keep = 1 if desk.site.probe_at_s <= now_s + HAND_BACK_S else 0
            return keep, self._later(now_s, wait_s), desk.site.why
        return None

    def _slot(self, now_s: float, desk: _Desk[Mail]) -> float:
        """When the next mail that has no place here may come again."""
        per_s = machine.per_s_at(now_s, desk.site, desk.place.receiver.limits)
        desk.back_at_s = max(desk.back_at_s, now_s + HAND_BACK_S) + 1.0 / per_s
        return desk.back_at_s

    def _later(self, now_s: float, wait_s: float) -> float:
        return now_s + wait_s * (1.0 + JITTER_SHARE * self._random.random())

    # Places -----------------------------------------------------------------------------------

    def _answered(self, key: str, desk: _Desk[Mail]) -> None:
        if desk.where == "full":
            self._make_ready(key, desk)

    def _make_ready(self, key: str, desk: _Desk[Mail]) -> None:
        if desk.where != "ready":
            desk.where = "ready"
            desk.ticket = 0
            self._ready.append(key)

    def _sleep(self, key: str, desk: _Desk[Mail], until_s: float) -> None:
        self._tickets += 1
        desk.where = "asleep"
        desk.ticket = self._tickets
        heappush(self._asleep, (until_s, desk.ticket, key))

    def _wake(self, now_s: float) -> None:
        while self._asleep and self._asleep[0][0] <= now_s:
            entry = heappop(self._asleep)
            if self._is_current(entry):
                self._make_ready(entry[2], self._desks[entry[2]])

    def _is_current(self, entry: tuple[float, int, str]) -> bool:
        desk = self._desks.get(entry[2])
        return desk is not None and desk.ticket == entry[1]

    def _desk(self, now_s: float, key: str, place: Place) -> _Desk[Mail]:
        desk = self._desks.pop(key, None)
        if desk is None:
            desk = _Desk(place, self._fresh)
            if len(self._desks) >= self._sites_max:
                self._forget_one(now_s)
        desk.place = place
        self._desks[key] = desk  # at the end: the longest untouched stand in front
        return desk

    def _forget_one(self, now_s: float) -> None:
        """Make room: of the longest untouched that are idle the one with the least to remember."""
        front = [key for key, _ in zip(self._desks, range(_FORGET_LOOKS_AT), strict=False)]
        idle = [key for key in front if self._is_idle(self._desks[key])]
        for key in front:
            self._desks[key] = self._desks.pop(key)
        if idle:
            open_first = min(idle, key=lambda key: self._is_remembered(now_s, self._desks[key]))
            del self._desks[open_first]

    def _is_idle(self, desk: _Desk[Mail]) -> bool:
        return desk.where == "" and not desk.line and desk.site.held == 0

    def _is_remembered(self, now_s: float, desk: _Desk[Mail]) -> bool:
        return machine.mode_at(now_s, desk.site, desk.place.receiver.limits) is not Mode.OPEN
