"""Which lines a lease asks, and from where: shares, turns, marks."""

from uuid import UUID, uuid5

from mailyard.queue.engines.lines import Lines, Probe

Q = "email-send"


def made(count: int, priority: int = 5) -> Lines:
    lines = Lines()
    for number in range(1, count + 1):
        lines.add(number, Q, priority, uuid5(UUID(int=0), str(number)))
    return lines


def plan(lines: Lines, limit: int = 100, now_s: float = 0.0) -> list[Probe]:
    return lines.plan([Q], limit, now_s, set())


def serve(
    lines: Lines, taken: dict[int, tuple[int, int]], limit: int = 100, now_s: float = 0.0
) -> None:
    """One lease that brought `taken`: line -> (jobs, last place)."""
    room = limit - sum(jobs for jobs, _ in taken.values())
    lines.answered(plan(lines, limit, now_s), taken, room, now_s, 0.001)


def test_one_line_may_fill_the_whole_lease() -> None:
    (probe,) = plan(made(1), 500)
    assert (probe.share, probe.after) == (500, 0)


def test_lines_with_work_share_alike() -> None:
    assert [probe.share for probe in plan(made(4), 100)] == [25, 25, 25, 25]


def test_an_idle_line_takes_nothing_from_the_busy() -> None:
    lines = made(4)
    serve(lines, {2: (25, 80)})
    probes = plan(lines, 100)
    assert probes[0].line.id == 2 and probes[0].share == 100
    assert len(probes) == 4  # the idle are asked too, behind


def test_a_higher_priority_is_asked_first_for_all() -> None:
    lines = made(2)
    lines.add(3, Q, 0, None)
    probes = plan(lines, 10)
    assert probes[0].line.id == 3
    assert probes[0].share == 10


def test_who_was_served_goes_to_the_end() -> None:
    lines = made(3)
    serve(lines, {1: (1, 10)}, limit=1)
    assert [probe.line.id for probe in plan(lines)] == [2, 3, 1]
    serve(lines, {2: (1, 11)}, limit=1)
    assert [probe.line.id for probe in plan(lines)] == [3, 1, 2]


def test_one_statement_asks_a_bounded_number_of_lines() -> None:
    lines = made(1000)
    first = plan(lines)
    assert len(first) == 64
    asked = {probe.line.id for probe in first}
    assert not asked & {probe.line.id for probe in lines.plan([Q], 100, 0.0, asked)}


def test_leases_begin_behind_what_was_taken() -> None:
    lines = made(1)
    serve(lines, {1: (100, 900)})
    (probe,) = plan(lines, now_s=0.001)
    assert (probe.after, probe.from_low) == (900, False)


def test_stragglers_are_looked_for_again_and_again() -> None:
    lines = made(1)
    serve(lines, {1: (50, 900)})
    (probe,) = plan(lines, now_s=0.5)
    assert probe.from_low and probe.after == 0  # nothing is known to be settled


def test_what_is_settled_is_not_looked_at_again() -> None:
    lines = made(1)
    lines.settle(xmin=100, next_xid=101, last_place=500)
    lines.settle(xmin=102, next_xid=103, last_place=900)
    lines.settle(xmin=103, next_xid=104, last_place=900)
    assert lines.safe == 500  # drawn before the snapshot whose transactions have all ended
    serve(lines, {1: (50, 900)})
    (probe,) = plan(lines, now_s=0.5)
    assert (probe.after, probe.from_low) == (500, True)


def test_an_open_transaction_holds_the_low_mark_back() -> None:
    lines = made(1)
    for turn in range(10):
        lines.settle(xmin=50, next_xid=100 + turn, last_place=turn * 100)
    assert lines.safe == 0
    lines.settle(xmin=200, next_xid=201, last_place=1000)
    assert lines.safe == 800


def test_the_low_mark_stays_behind_what_a_full_share_left() -> None:
    lines = made(1)
    lines.settle(xmin=100, next_xid=101, last_place=5000)
    lines.settle(xmin=102, next_xid=103, last_place=5000)
    lines.settle(xmin=103, next_xid=104, last_place=5000)
    serve(lines, {1: (100, 140)}, limit=100)
    (probe,) = plan(lines, now_s=0.5)
    assert probe.after == 140


def settled(lines: Lines, place: int) -> None:
    lines.settle(xmin=100, next_xid=101, last_place=place)
    lines.settle(xmin=102, next_xid=103, last_place=place)
    lines.settle(xmin=103, next_xid=104, last_place=place)
    assert lines.safe == place


def test_a_line_that_the_lease_cut_short_is_not_drained() -> None:
    lines = made(2)
    settled(lines, 5000)
    assert [probe.share for probe in plan(lines, limit=3)] == [2, 2]
    serve(lines, {1: (2, 11), 2: (1, 12)}, limit=3)
    after = {probe.line.id: probe.after for probe in plan(lines, limit=3, now_s=0.001)}
    assert after == {1: 11, 2: 12}


def test_what_came_back_behind_the_marks_is_taken_without_a_pause_between_shares() -> None:
    lines = made(1)
    settled(lines, 5000)
    serve(lines, {1: (50, 4900)})
    assert plan(lines, now_s=31.0)[0].after == 0
    serve(lines, {1: (100, 140)}, now_s=31.0)  # left by a lease of another process that rolled back
    for now_s, last in ((31.001, 240), (31.002, 340)):
        (probe,) = plan(lines, now_s=now_s)
        assert probe.after == last - 100
        serve(lines, {1: (100, last)}, now_s=now_s)


def test_a_costly_look_is_taken_seldom() -> None:
    lines = made(1)
    lines.answered(plan(lines), {1: (50, 900)}, 50, 0.0, 1.0)  # it took a second
    assert not plan(lines, now_s=10.0)[0].from_low
    assert plan(lines, now_s=21.0)[0].from_low


def test_once_in_a_while_a_lease_begins_at_zero() -> None:
    lines = made(1)
    lines.settle(xmin=100, next_xid=101, last_place=500)
    lines.settle(xmin=102, next_xid=103, last_place=900)
    lines.settle(xmin=103, next_xid=104, last_place=900)
    serve(lines, {1: (50, 900)})
    assert plan(lines, now_s=29.0)[0].after > 0
    assert plan(lines, now_s=31.0)[0].after == 0
