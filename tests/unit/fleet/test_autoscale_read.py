"""What a group looks like, out of two looks at the installation."""

from mailyard.fleet.autoscale.policy import Policy
from mailyard.fleet.autoscale.read import read
from mailyard.fleet.figures import figures
from mailyard.fleet.look import DatabaseLook, Http, Look, ProcessLook, Stats, Totals

API = Policy("api", "api")


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
