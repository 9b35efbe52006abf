"""One destination site as a state machine: how much may go now, and what its answers change.

    open ──slow──> slower ──quiet time──> open        the share of the limits: down by a factor, up
      │                                               by a step every so often, by the clock alone
      ├──pause──> paused ──time──> open or slower
      └──nothing but refusals──> probing ──one acceptance──> slower

Everything is a function of (now, state, what happened): there is no timer. `decide` gives mails
their way within what this process may hold and within permits that were drawn from the bucket of
all workers; `observe` reads an answer.

A state is this process's own view. What other processes must know of it is a `News` (a pause, a
smaller share). Taking one in twice changes nothing, and the order matters by one step of recovery
at most.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from random import Random

from msgspec import Struct
from msgspec.structs import replace

from mailyard.core.backoff import Backoff
from mailyard.sending.shape.answer import Answer
from mailyard.sending.shape.receiver import Limits, Receiver
from mailyard.sending.shape.rule import Rule, Ruling, matching, ruling_of
from mailyard.sending.transport import Outcome

SHARE_MIN = 0.01  # of the limits; below it, pausing is the honest word
HELD_PER_CONNECTION = 8  # mails on their way in one connection (pipelining)
PROBE_AFTER = 10  # refusals in a row, none of them about a recipient
PROBE_EVERY = Backoff(first_s=30.0, cap_s=1800.0)
SHARE_AFTER_PROBING = 0.1  # a site that has just come back is not flooded
SETTLE_S = 5.0  # answers to what was on its way already change nothing twice
BURST_S = 1.0  # how much of the rate may go at once
PERMIT_S = 2.0  # permits that were drawn and not used by then are void
WHY_CHARACTERS = 200


class Mode(StrEnum):
    """How a site is written to, for the page."""

    OPEN = "open"
    SLOWER = "slower"
    PAUSED = "paused"
    PROBING = "probing"


class Hits(Struct, frozen=True):
    """When a rule with a threshold was met, at most its count of instants."""

    rule: str
    at_s: tuple[float, ...]


class Site(Struct, frozen=True):
    """The state. `share` of the limits held at `slowed_at_s`; instants in seconds since 1970.

    `leased`: connections that this process may have (`share.Holding`). None: nobody said.
    """

    share: float = 1.0
    slowed_at_s: float = 0.0
    paused_until_s: float = 0.0
    why: str = ""
    refusals: int = 0
    probe_at_s: float = 0.0
    held: int = 0
    leased: int | None = None
    permits: int = 0
    permits_until_s: float = 0.0
    dry_until_s: float = 0.0
    hits: tuple[Hits, ...] = ()


@dataclass(frozen=True, slots=True)
class Draw:
    """Permits to be drawn from the bucket that all workers share (`RateLimit.draw`)."""

    amount: int
    per_s: float
    burst: float


class Decision(Struct, frozen=True):
    """`allowed` mails may go now. None: draw first if `draw` says so, else wait until `until_s`.

    It is infinite when there is nothing to wait for but the answers that are outstanding.
    """

    allowed: int = 0
    until_s: float = 0.0
    why: str = ""
    draw: Draw | None = None


class EventKind(StrEnum):
    """What the page and the alerts are told."""

    PAUSED = "paused"
    SLOWED = "slowed"
    PROBING = "probing"
    BACK = "back"
    ALERT = "alert"


@dataclass(frozen=True, slots=True)
class SiteEvent:
    """Something changed at `at_s`: by which rule, after which answer, and until when."""

    kind: EventKind
    at_s: float
    rule: str
    answer: str
    share: float
    until_s: float | None
    text: str


@dataclass(frozen=True, slots=True)
class News:
    """What other processes must know: the parts of a state that are about the site itself."""

    share: float
    slowed_at_s: float
    paused_until_s: float
    why: str


class Reaction(Struct, frozen=True):
    """What an answer means: for the mail, for the page, and for other processes."""

    ruling: Ruling
    rule: str
    events: tuple[SiteEvent, ...]
    news: News | None


class Standing(Struct, frozen=True):
    """A site as it is written to now, for the page. `until_s`: None while nothing holds it back."""

    mode: Mode
    share: float
    per_s: float
    connections: int
    held: int
    until_s: float | None
    why: str


PRISTINE = Site()
_NOTHING = Reaction(Ruling(None), "", (), None)


def share_at(now_s: float, site: Site, limits: Limits) -> float:
    """The share of the limits that holds at `now_s`: a step more for every quiet time passed."""
    if site.share >= 1.0:
        return 1.0
    steps = int(max(0.0, now_s - site.slowed_at_s) / limits.recover_every_s)
    return min(1.0, site.share + steps * limits.recover_step)


def mode_at(now_s: float, site: Site, limits: Limits) -> Mode:
    """What the page shows."""
    if now_s < site.paused_until_s:
        return Mode.PAUSED
    if site.refusals >= PROBE_AFTER:
        return Mode.PROBING
    return Mode.OPEN if share_at(now_s, site, limits) >= 1.0 else Mode.SLOWER


def per_s_at(now_s: float, site: Site, limits: Limits) -> float:
    """Recipients a second, all workers together."""
    return limits.rate.per_s * share_at(now_s, site, limits)


def connections_at(now_s: float, site: Site, limits: Limits) -> int:
    """Connections at once, all workers together: what to lease."""
    if now_s < site.paused_until_s:
        return 0
    if site.refusals >= PROBE_AFTER:
        return 1
    return max(1, int(limits.connections * share_at(now_s, site, limits)))


def held_max_at(now_s: float, site: Site, limits: Limits) -> int:
    """Mails of this site that a process may have on their way."""
    connections = connections_at(now_s, site, limits)
    if site.leased is not None:
        connections = min(connections, site.leased)
    if site.refusals >= PROBE_AFTER:
        return min(connections, 1)
    return connections * HELD_PER_CONNECTION


def standing(now_s: float, site: Site, limits: Limits) -> Standing:
    """How it stands: what holds now of its limits, why, and until when."""
    mode = mode_at(now_s, site, limits)
    until_s = {Mode.PAUSED: site.paused_until_s, Mode.PROBING: site.probe_at_s}.get(mode)
    return Standing(
        mode=mode,
        share=share_at(now_s, site, limits),
        per_s=0.0 if mode is Mode.PAUSED else per_s_at(now_s, site, limits),
        connections=connections_at(now_s, site, limits),
        held=site.held,
        until_s=until_s,
        why="" if until_s is None else site.why,
    )


def decide(
    now_s: float, site: Site, limits: Limits, wanted: int, behind: int = 0
) -> tuple[Site, Decision]:
    """How many of `wanted` mails may go now; those that may are counted as held.

    `behind` more will be wanted next: a draw takes permits for them too, as far as they can go.
    Each of them is answered exactly once, through `observe` or `released`.
    """
    if now_s < site.paused_until_s:
        return site, Decision(until_s=site.paused_until_s, why=site.why)
    room = held_max_at(now_s, site, limits) - site.held
    if site.refusals >= PROBE_AFTER and room > 0 and now_s < site.probe_at_s:
        return site, Decision(until_s=site.probe_at_s, why=site.why)
    if room <= 0:
        return site, Decision(until_s=inf, why="enough are on their way")
    if site.permits > 0 and now_s < site.permits_until_s:
        count = min(wanted, room, site.permits)
        site = replace(site, held=site.held + count, permits=site.permits - count)
        return site, Decision(allowed=count)
    if now_s < site.dry_until_s:
        return site, Decision(until_s=site.dry_until_s, why="rate")
    per_s = per_s_at(now_s, site, limits)
    burst = max(1.0, per_s * BURST_S)
    return site, Decision(draw=Draw(min(wanted + behind, room, int(burst)), per_s, burst))


def drawn(asked_at_s: float, site: Site, draw: Draw, wait_s: float) -> Site:
    """After `draw` was asked for at `asked_at_s`: taken (`wait_s` 0), or refused for so long."""
    if wait_s > 0.0:
        return replace(site, permits=0, dry_until_s=asked_at_s + wait_s)
    return replace(
        site, permits=draw.amount, permits_until_s=asked_at_s + PERMIT_S, dry_until_s=0.0
    )


def released(site: Site, count: int) -> Site:
    """`count` mails that were allowed did not go after all (their hand-off was not committed)."""
    return replace(site, held=max(0, site.held - count))


def observe(
    now_s: float, site: Site, receiver: Receiver, answer: Answer, random: Random
) -> tuple[Site, Reaction]:
    """Read the answer for one recipient that was allowed before."""
    site = released(site, 1)
    if answer.outcome is Outcome.ACCEPTED:
        return _accepted(now_s, site, answer)
    matches = matching(receiver.rules, answer)
    events: list[SiteEvent] = []
    before = site
    for rule in matches:
        site, due = _due(now_s, site, rule)
        if due:
            site, events = _act(now_s, site, receiver.limits, rule, answer)
            break
    if not matches or not matches[0].recipient_only:
        site, more = _refused(now_s, site, answer, random)
        events += more
    changed = (site.share, site.slowed_at_s, site.paused_until_s) != (
        before.share,
        before.slowed_at_s,
        before.paused_until_s,
    )
    return site, Reaction(
        ruling=ruling_of(matches, answer),
        rule=matches[0].name if matches else "",
        events=tuple(events),
        news=news_of(site) if changed else None,
    )


def news_of(site: Site) -> News:
    return News(site.share, site.slowed_at_s, site.paused_until_s, site.why)


def informed(site: Site, news: News, limits: Limits) -> Site:
    """Take in what another process saw: the longer pause, and the smaller share of the two."""
    at_s = max(site.slowed_at_s, news.slowed_at_s)
    theirs = share_at(at_s, Site(share=news.share, slowed_at_s=news.slowed_at_s), limits)
    ours = share_at(at_s, site, limits)
    longer = news.paused_until_s > site.paused_until_s
    return replace(
        site,
        share=min(ours, theirs),
        slowed_at_s=at_s,
        paused_until_s=max(site.paused_until_s, news.paused_until_s),
        why=news.why if longer else site.why,
    )


def resumed(site: Site) -> Site:
    """A person says that it may go on: no pause, no probing; a smaller share stays."""
    return replace(site, paused_until_s=0.0, why="", refusals=0, probe_at_s=0.0)


def _accepted(now_s: float, site: Site, answer: Answer) -> tuple[Site, Reaction]:
    if site.refusals < PROBE_AFTER:
        if site.refusals:
            site = replace(site, refusals=0)
        return site, _NOTHING
    share = min(site.share, SHARE_AFTER_PROBING)
    site = replace(site, refusals=0, probe_at_s=0.0, share=share, slowed_at_s=now_s, why="")
    text = "it accepts mail again"
    event = SiteEvent(EventKind.BACK, now_s, "", answer.shown, share, None, text)
    return site, Reaction(Ruling(None), "", (event,), news_of(site))


def _due(now_s: float, site: Site, rule: Rule) -> tuple[Site, bool]:
    """Whether the rule's threshold is reached by a hit now; its hits are counted anew then."""
    if rule.after is None:
        return site, True
    others = tuple(one for one in site.hits if one.rule != rule.name)
    since_s = now_s - rule.after.window_s
    before = next((one.at_s for one in site.hits if one.rule == rule.name), ())
    at_s = (*(at for at in before if at > since_s), now_s)
    if len(at_s) >= rule.after.count:
        return replace(site, hits=others), True
    return replace(site, hits=(*others, Hits(rule.name, at_s))), False


def _act(
    now_s: float, site: Site, limits: Limits, rule: Rule, answer: Answer
) -> tuple[Site, list[SiteEvent]]:
    shown = answer.shown[:WHY_CHARACTERS]
    events = []
    if rule.slow is not None and now_s >= site.slowed_at_s + SETTLE_S:
        share = max(SHARE_MIN, share_at(now_s, site, limits) * rule.slow)
        site = replace(site, share=share, slowed_at_s=now_s)
        events.append(SiteEvent(EventKind.SLOWED, now_s, rule.name, shown, share, None, ""))
    if rule.pause_s is not None and now_s + rule.pause_s >= site.paused_until_s + SETTLE_S:
        until_s = now_s + rule.pause_s
        site = replace(site, paused_until_s=until_s, why=f"{rule.name}: {shown}")
        events.append(SiteEvent(EventKind.PAUSED, now_s, rule.name, shown, site.share, until_s, ""))
    # Of eighty answers that were on their way one raises the alert: the one that changed something.
    if rule.alert and (events or (rule.slow is None and rule.pause_s is None)):
        events.append(
            SiteEvent(EventKind.ALERT, now_s, rule.name, shown, site.share, None, rule.alert)
        )
    return site, events


def _refused(
    now_s: float, site: Site, answer: Answer, random: Random
) -> tuple[Site, list[SiteEvent]]:
    """Count what is no word about a recipient; from PROBE_AFTER on only probes go, ever rarer."""
    if answer.outcome is Outcome.NEVER:
        return site, []
    refusals = site.refusals + 1
    if refusals < PROBE_AFTER:
        return replace(site, refusals=refusals), []
    wait_s = PROBE_EVERY.delay_s(refusals - PROBE_AFTER + 1, random)
    shown = answer.shown[:WHY_CHARACTERS]
    why = f"nothing but refusals, {refusals} in a row: {shown}"
    site = replace(site, refusals=refusals, probe_at_s=now_s + wait_s, why=why)
    if refusals > PROBE_AFTER:
        return site, []
    event = SiteEvent(EventKind.PROBING, now_s, "", shown, site.share, site.probe_at_s, why)
    return site, [event]
