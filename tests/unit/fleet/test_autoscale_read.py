"""What a group looks like, out of two looks at the installation."""

from dataclasses import replace

import pytest

from mailyard.fleet.autoscale.decide import DOWN, Memory, Reading, decide, wanted
from mailyard.fleet.autoscale.policy import Policy, read_policies
from mailyard.fleet.autoscale.read import read
from mailyard.fleet.figures import figures
from mailyard.fleet.look import DatabaseLook, Http, Look, ProcessLook, Stats, Totals
from mailyard.queue.job import EMAIL_BULK, EMAIL_SEND, INBOUND_EMAIL, LANES, Depth

API = Policy("api", "api")
WORKER = replace(next(one for one in read_policies() if one.group == "worker"), least=1, most=8)


def process(
    name: str, at_s: float, *, cpu_s: float, count: float, up_s: float = 900.0, waiting: float = 0.0
) -> ProcessLook:
    told = Totals(http=Http(arrived=count, count=count, waiting=waiting, buckets=[count] * 14))
    stats = Stats(memory_share=0.2, cpu_s=cpu_s, totals=told)
    return ProcessLook(name, "api", "here", 7, up_s, at_s, stats)


def look(at_s: float, *processes: ProcessLook) -> Look:
    return Look(at_s, processes, {}, DatabaseLook(10, None), None)


def test_a_process_that_has_just_begun_hides_nothing_of_the_others() -> None:
    before = look(0.0, process("a", 0.0, cpu_s=10.0, count=1_000))
    now = look(
        15.0,
        process("a", 15.0, cpu_s=25.0, count=2_500, waiting=40),
        process("b", 14.0, cpu_s=2.0, count=100, up_s=4.0, waiting=10),
    )

    reading = read(
        API,
        before=before,
        now=now,
        figures=figures(before, now, 100),
        instances=2,
        budget=100,
        each=10,
    )

    (requests,) = reading.lanes
    assert requests.service_s == 15.0 / 1_500
    assert requests.arrival_per_s == 1_500 / 15 + 100 / 4
    assert requests.backlog == 50
    assert (reading.values["cpu"], reading.values["busy"], reading.room) == (1.0, 1.0, 8)


def workers(
    at_s: float, *, count: int, per_s: dict[str, float], each_s: float, cpu_s: float
) -> Look:
    """`count` workers that since 0.0 have done `per_s` jobs in each queue together, `each_s` long,
    and had `cpu_s` of the processor for each; nothing waits."""
    processes = []
    for number in range(count):
        done = {queue: rate * at_s / count for queue, rate in per_s.items()}
        jobs = {
            queue: {"completed": n, "batches": n, "seconds": n * each_s, "slots": 4.0}
            for queue, n in done.items()
        }
        stats = Stats(memory_share=0.2, cpu_s=cpu_s * sum(done.values()), totals=Totals(jobs=jobs))
        processes.append(ProcessLook(f"w{number}", "worker", "here", 7, 900.0, at_s, stats))
    depths = {lane: Depth(lane, 0, 0, 0, 0, 0.0) for lane in LANES}
    return Look(at_s, processes, depths, DatabaseLook(10, None), None)


def worker_reading(
    *,
    count: int,
    per_s: dict[str, float],
    each_s: float,
    cpu_s: float,
    queues: tuple[str, ...] = (),
) -> Reading:
    before, now = (
        workers(at_s, count=count, per_s=per_s, each_s=each_s, cpu_s=cpu_s) for at_s in (0.0, 15.0)
    )
    return read(
        WORKER,
        before=before,
        now=now,
        figures=figures(before, now, 100),
        instances=count,
        budget=100,
        each=5,
    )


THREE = {EMAIL_SEND: 35.0, EMAIL_BULK: 35.0, INBOUND_EMAIL: 35.0}


def test_queues_that_share_a_core_need_together_what_none_of_them_needs_alone() -> None:
    """Three queues want 0.35 of a core each: one process would be 1.05 of a core short of rest."""
    reading = worker_reading(count=2, per_s=THREE, each_s=0.020, cpu_s=0.010)
    *queues, core = reading.lanes
    assert wanted(WORKER, replace(reading, lanes=tuple(queues))) == (1, True)
    assert core.name == "core" and core.slots == 1.0
    assert core.service_s == pytest.approx(0.5)
    assert core.arrival_per_s == pytest.approx(3 * 35.0 * 0.020)
    assert wanted(WORKER, reading) == (2, True)


def test_what_keeps_a_core_busy_is_not_sent_down_to_come_up_again() -> None:
    def last(cpu_s: float) -> str:
        memory = Memory()
        for second in range(0, 1200, 5):
            reading = worker_reading(count=2, per_s=THREE, each_s=0.020, cpu_s=cpu_s)
            decision, memory = decide(WORKER, memory, reading, float(second))
            if decision.kind == DOWN:
                break
        return decision.kind

    assert last(0.010) != DOWN
    assert last(0.002) == DOWN, "jobs that wait for others share a core well"


def test_a_process_that_does_little_is_not_taken_for_jobs_that_cost_much() -> None:
    """20 ms of a core a second for itself, and a job of 10 ms: no more than the job lasts."""
    reading = worker_reading(count=1, per_s={EMAIL_SEND: 1.0}, each_s=0.010, cpu_s=0.030)
    assert reading.lanes[-1].service_s == 1.0


def test_a_queue_that_nobody_knows_is_told_of_by_itself_alone() -> None:
    reading = worker_reading(count=1, per_s={}, each_s=0.0, cpu_s=0.0)
    assert "core" not in [lane.name for lane in reading.lanes]
