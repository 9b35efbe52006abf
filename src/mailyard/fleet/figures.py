"""Figures of the whole installation out of two looks at it: what alert rules, the autoscaler, the
pages and `/monitoring/metrics` go by. Pure.

A figure has a name (`api.p95_s`) and, where there are several, a subject (a queue, a role). None
is "not known", which is neither good nor bad; where nothing happened, a rate is 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mailyard.fleet.look import Look, ProcessLook, Totals
from mailyard.observe.metrics import FAST_BUCKETS, SLOW_BUCKETS
from mailyard.queue.job import ANALYSIS, EMAIL_SEND, INBOUND_EMAIL, WEBHOOKS

Figures = dict[str, dict[str, float | None]]  # name -> subject ("" alone) -> value

INTERACTIVE = (EMAIL_SEND, INBOUND_EMAIL, WEBHOOKS, ANALYSIS)
_NOTHING = Totals()
_LEAST_LOOKUPS = 200  # of a cache: fewer say nothing about it
_LEAST_MAILS = 100  # of an hour: a share of fewer is chance
_LEAST_BATCHES = 20
_BOUNDS = (*FAST_BUCKETS, float("inf"))
_SLOW_BOUNDS = (*SLOW_BUCKETS, float("inf"))


@dataclass(frozen=True, slots=True)
class Step:
    """One process between two of its beats: what it is now, what it counted before, how long."""

    now: ProcessLook
    before: Totals
    seconds: float
    cpu_s: float | None
    cpu_wait_s: float
    cache: Mapping[str, int]

    @property
    def arrived(self) -> float:
        """Requests that came, whether they were answered or not."""
        http, old = self.now.stats.totals.http, self.before.http
        return max(http.arrived - old.arrived, http.count - old.count)


def steps(before: Look | None, now: Look) -> list[Step]:
    """What each process did since `before`; of a newer one, all that it ever did."""
    known = {one.id: one for one in before.processes} if before is not None else {}
    found = []
    for one in now.processes:
        old = known.get(one.id)
        if old is None:
            found.append(Step(one, _NOTHING, max(one.up_s, 1.0), None, 0.0, {}))
        elif one.at_s > old.at_s:
            cpu_s = one.stats.cpu_s - old.stats.cpu_s
            waited_s = max(0.0, one.stats.cpu_wait_s - old.stats.cpu_wait_s)
            seconds = one.at_s - old.at_s
            found.append(Step(one, old.stats.totals, seconds, cpu_s, waited_s, old.stats.cache))
    return found


@dataclass(frozen=True, slots=True)
class QueueFlow:
    """One queue's work between two looks, over all workers. `service_s`: seconds of one job;
    `seconds`: of all slots together."""

    done: float
    per_s: float
    failed: float
    service_s: float | None
    batches: float
    slots: float  # of one worker, the mean
    seconds: float = 0.0


def queue_flows(made: Sequence[Step]) -> dict[str, QueueFlow]:
    """By queue; a queue that no worker serves is not there."""
    names = {name for step in made for name in step.now.stats.totals.jobs}
    return {name: _flow(name, made) for name in sorted(names)}


def _flow(name: str, made: Sequence[Step]) -> QueueFlow:
    done = failed = seconds = batches = slots = per_s = 0.0
    workers = 0
    for step in made:
        now = step.now.stats.totals.jobs.get(name)
        if now is None:
            continue
        old = step.before.jobs.get(name, {})
        here = now.get("completed", 0.0) - old.get("completed", 0.0)
        wrong = sum(now.get(word, 0.0) - old.get(word, 0.0) for word in ("retried", "buried"))
        done += here
        failed += wrong
        per_s += (here + wrong) / step.seconds
        seconds += now.get("seconds", 0.0) - old.get("seconds", 0.0)
        batches += now.get("batches", 0.0) - old.get("batches", 0.0)
        slots += now.get("slots", 0.0)
        workers += now.get("slots", 0.0) > 0
    tried = done + failed
    return QueueFlow(
        done=done,
        per_s=per_s,
        failed=failed,
        service_s=seconds / tried if tried > 0 else None,
        batches=batches,
        slots=slots / workers if workers else 0.0,
        seconds=seconds,
    )


def quantile(
    counts: Sequence[float], share: float, bounds: Sequence[float] = _BOUNDS
) -> float | None:
    """Of a cumulative histogram over `bounds`; straight lines between them. None: empty."""
    if not counts or counts[-1] <= 0:
        return None
    rank = share * counts[-1]
    below = bound_below = 0.0
    for bound, count in zip(bounds, counts, strict=False):
        if count >= rank:
            if bound == float("inf"):
                return bounds[-2]
            part = (rank - below) / (count - below) if count > below else 1.0
            return bound_below + (bound - bound_below) * part
        below, bound_below = count, bound
    return bounds[-2]


def figures(before: Look | None, now: Look, budget: int) -> Figures:
    """All figures. `budget`: connections that the installation may use."""
    made = steps(before, now)
    found: Figures = {}
    for name, subject, value in _all(made, now, budget):
        found.setdefault(name, {})[subject] = value
    return found


_Told = Iterator[tuple[str, str, float | None]]


def _all(made: Sequence[Step], now: Look, budget: int) -> _Told:
    yield from _api([step for step in made if step.now.role == "api"])
    yield from _queues(queue_flows(made), now)
    yield from _database(now, budget)
    yield from _queries(made)
    yield from _processes(made, now)
    yield from _cache(made)
    yield from _mail([step for step in made if step.now.role != "scheduler"])
    yield from _analysis([step for step in made if step.now.stats.totals.analysis.calls])
    yield from _limits(made)
    yield from _redis(made)
    yield "disk.used", "", now.disk_used
    more: dict[str, float] = {}
    for one in now.processes:
        for name, value in one.stats.totals.more.items():
            more[name] = max(value, more.get(name, value))
    for told, value in sorted(more.items()):
        name, _, subject = told.partition(" ")
        yield name, subject, value


def _api(made: Sequence[Step]) -> _Told:
    if not made:
        return
    counts = [0.0] * len(_BOUNDS)
    count = errors = per_s = waiting = 0.0
    for step in made:
        http, old = step.now.stats.totals.http, step.before.http
        new = http.count - old.count
        count += new
        per_s += step.arrived / step.seconds
        waiting += http.waiting
        errors += http.errors - old.errors
        for place, value in enumerate(http.buckets[: len(counts)]):
            earlier = old.buckets[place] if place < len(old.buckets) else 0.0
            counts[place] += value - earlier
    yield "api.requests_per_s", "", per_s
    yield "api.waiting", "", waiting
    yield "api.error_share", "", errors / count if count else 0.0
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        yield f"api.{name}_s", "", quantile(counts, share) or 0.0


def _queues(flows: Mapping[str, QueueFlow], now: Look) -> _Told:
    failed = tried = 0.0
    for name, depth in now.depths.items():
        flow = flows.get(name)
        yield "queue.depth", name, float(depth.ready)
        yield "queue.scheduled", name, float(depth.scheduled)
        yield "queue.dead", name, float(depth.dead)
        yield "queue.oldest_s", name, depth.oldest_age_s
        yield "queue.per_s", name, flow.per_s if flow else 0.0
        yield "queue.processing_s", name, (flow.service_s or 0.0) if flow else 0.0
        if flow:
            failed += flow.failed
            tried += flow.failed + flow.done
            yield "queue.failed_share", name, flow.failed / max(1.0, flow.failed + flow.done)
    for name in INTERACTIVE:
        if name in now.depths:
            yield "queue.interactive_depth", name, float(now.depths[name].ready)
    yield "worker.failed_share", "", failed / tried if tried >= _LEAST_BATCHES else 0.0
    sends, flow = now.depths.get(EMAIL_SEND), flows.get(EMAIL_SEND)
    if sends is not None:
        yield "send.latency_s", "", sends.oldest_age_s + ((flow.service_s or 0.0) if flow else 0.0)


def _database(now: Look, budget: int) -> _Told:
    if now.database is None:
        yield "database.connections_share", "", None
        return
    yield "database.connections", "", float(now.database.connections)
    yield "database.connections_share", "", now.database.connections / budget
    yield "database.lag_s", "", now.database.lag_s


def _queries(made: Sequence[Step]) -> _Told:
    """The mean of the named queries that each process tells of."""
    count = seconds = 0.0
    for step in made:
        for name, (often, spent) in step.now.stats.totals.queries.items():
            before = step.before.queries.get(name, (0.0, 0.0))
            count += max(0.0, often - before[0])
            seconds += max(0.0, spent - before[1])
    yield "database.query_mean_s", "", seconds / count if count else 0.0


def _mail(made: Sequence[Step]) -> _Told:
    """Both ways: what came in by SMTP and what became of what went out, a second."""
    for word in ("accepted", "refused"):
        yield (
            f"smtp.{word}_per_s",
            "",
            sum(
                (step.now.stats.totals.smtp.get(word, 0.0) - step.before.smtp.get(word, 0.0))
                / step.seconds
                for step in made
            ),
        )
    rates = dict.fromkeys(("accepted", "delivered", "deferred", "bounced", "failed"), 0.0)
    for step in made:
        for name, amount in step.now.stats.totals.deliveries.items():
            state = name.split(" ")[-1]
            if state in rates:
                rates[state] += (amount - step.before.deliveries.get(name, 0.0)) / step.seconds
    for state, per_s in rates.items():
        yield f"send.{state}_per_s", "", per_s


def _analysis(made: Sequence[Step]) -> _Told:
    """Of models that were asked at all; rules that need no model are no calls."""
    if not made:
        return
    counts = [0.0] * (len(SLOW_BUCKETS) + 1)
    calls = failures = 0.0
    calls_per_s = tokens_per_s = 0.0
    for step in made:
        now, old = step.now.stats.totals.analysis, step.before.analysis
        calls += now.calls - old.calls
        failures += now.failures - old.failures
        calls_per_s += (now.calls - old.calls) / step.seconds
        tokens_per_s += (now.tokens - old.tokens) / step.seconds
        for place, value in enumerate(now.buckets[: len(counts)]):
            counts[place] += value - (old.buckets[place] if place < len(old.buckets) else 0.0)
    yield "analysis.calls_per_s", "", calls_per_s
    yield "analysis.tokens_per_s", "", tokens_per_s
    yield "analysis.failed_share", "", failures / calls if calls else 0.0
    for name, share in (("p50", 0.5), ("p95", 0.95)):
        yield f"analysis.{name}_s", "", quantile(counts, share, _SLOW_BOUNDS) or 0.0


def _limits(made: Sequence[Step]) -> _Told:
    """How much of each limit is used: what all took of a rate, or the fullest bucket seen."""
    used: dict[str, float] = {}
    for step in made:
        for name, (taken, per_s) in step.now.stats.totals.rates.items():
            before = step.before.rates.get(name, (0.0, 0.0))[0]
            if per_s > 0:
                used[name] = used.get(name, 0.0) + (taken - before) / step.seconds / per_s
    for step in made:
        for name, share in step.now.stats.totals.fullest.items():
            used[name] = max(share, used.get(name, 0.0))
    for name, share in sorted(used.items()):
        yield "provider.limit_share", name, share


def _redis(made: Sequence[Step]) -> _Told:
    """What Redis itself counts, which every process is told now and then: the latest of all."""
    told = [step for step in made if step.now.stats.totals.redis]
    if not told:
        return
    new = {}
    for word in ("hits", "misses", "evictions"):
        now = max(step.now.stats.totals.redis.get(word, 0.0) for step in told)
        old = max(step.before.redis.get(word, 0.0) for step in told)
        new[word] = max(0.0, now - old) if old else 0.0
    looked = new["hits"] + new["misses"]
    seconds = max(step.seconds for step in told)
    yield "redis.hit_share", "", new["hits"] / looked if looked >= _LEAST_LOOKUPS else None
    yield "redis.evictions_per_s", "", new["evictions"] / seconds


def _processes(made: Sequence[Step], now: Look) -> _Told:
    for role in ("api", "smtp", "worker", "scheduler"):
        mine = [one for one in now.processes if one.role == role]
        yield "process.count", role, float(len(mine))
        if not mine:
            continue
        yield "process.memory_share", role, max(one.stats.memory_share for one in mine)
        yield "process.memory_bytes", role, float(sum(one.stats.memory_bytes for one in mine))
        busy = [
            step.cpu_s / step.seconds
            for step in made
            if step.now.role == role and step.cpu_s is not None
        ]
        yield "process.cpu", role, sum(busy) / len(busy) if busy else None
        waited = [
            step.cpu_wait_s / step.seconds
            for step in made
            if step.now.role == role and step.cpu_s is not None
        ]
        yield "process.cpu_wait", role, sum(waited) / len(waited) if waited else None
    yield "live.connections", "", sum(one.stats.totals.live for one in now.processes)
    yield (
        "smtp.sessions",
        "",
        sum(one.stats.totals.smtp.get("sessions", 0.0) for one in now.processes),
    )


def _cache(made: Sequence[Step]) -> _Told:
    """The nearest layer alone: what it misses, the others are asked for."""
    hits = misses = 0
    for step in made:
        for name, count in step.now.stats.cache.items():
            _, layer, outcome = name.split(" ")
            if layer == "process":
                new = count - step.cache.get(name, 0)
                hits += new if outcome == "hit" else 0
                misses += new if outcome != "hit" else 0
    looked = hits + misses
    yield "cache.hit_share", "", hits / looked if looked >= _LEAST_LOOKUPS else None


@dataclass(slots=True)
class MailTally:
    """What became of mail over the last hour, in minutes: shares of fewer mails say nothing."""

    minutes: dict[int, list[float]]

    @classmethod
    def empty(cls) -> "MailTally":
        return cls({})

    def add(self, made: Sequence[Step], at_s: float) -> None:
        """Count what was told between two looks."""
        minute = int(at_s // 60)
        here = self.minutes.setdefault(minute, [0.0, 0.0, 0.0])
        for step in made:
            for place, amount in enumerate(_outcomes(step.now.stats.totals)):
                here[place] += amount - _outcomes(step.before)[place]
        for old in [one for one in self.minutes if one <= minute - 60]:
            del self.minutes[old]

    def figures(self) -> Figures:
        """Shares of what was handed over or refused in the hour; None where it was too little."""
        taken, bounced, complained = (
            sum(one[place] for one in self.minutes.values()) for place in range(3)
        )
        tried = taken + bounced
        enough = tried >= _LEAST_MAILS
        return {
            "send.bounce_share": {"": bounced / tried if enough else None},
            "send.delivered_share": {"": 1.0 - bounced / tried if enough else None},
            "send.complaint_share": {"": complained / taken if enough and taken else None},
        }


def _outcomes(told: Totals) -> tuple[float, float, float]:
    """(taken by the next server, refused or bounced later, complained about)."""
    taken = refused = 0.0
    for name, amount in told.deliveries.items():
        state = name.split(" ")[-1]
        taken += amount if state in ("accepted", "delivered") else 0.0
        refused += amount if state in ("bounced", "failed") else 0.0
    returned = told.returned.get("bounce", 0.0)
    complained = told.returned.get("complaint", 0.0)
    return taken - min(returned, taken), refused + returned, complained


def slowest_queries(
    before: Look | None, now: Look, most: int = 5
) -> list[tuple[str, float, float]]:
    """(name, share of a core's time, mean seconds) of the queries that took most time lately."""
    found: dict[str, list[float]] = {}
    seconds = 0.0
    for step in steps(before, now):
        seconds = max(seconds, step.seconds)
        for name, (count, spent) in step.now.stats.totals.queries.items():
            old_count, old_spent = step.before.queries.get(name, (0.0, 0.0))
            here = found.setdefault(name, [0.0, 0.0])
            here[0] += max(0.0, count - old_count)
            here[1] += max(0.0, spent - old_spent)
    costly = sorted(found.items(), key=lambda item: -item[1][1])[:most]
    return [
        (name, spent / max(seconds, 1.0), spent / count) for name, (count, spent) in costly if count
    ]
