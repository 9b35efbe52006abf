"""What experiments are made of: picture, table, when something is normal again, pace."""

from xml.etree import ElementTree

import pytest

from mailyard.proving.experiments.chart import Line, Mark, Panel, chart
from mailyard.proving.experiments.pace import Pace
from mailyard.proving.experiments.series import Series, recovered_s


def test_a_chart_is_well_formed_and_has_every_line_and_what_it_is_called() -> None:
    panels = [
        Panel("a < b", [Line("x & y", [(0, 0), (1, 5)]), Line("z", [(0, 1)], stairs=True)]),
        Panel("none", [Line("nothing", [])]),
    ]

    svg = ElementTree.fromstring(chart("t", panels, [Mark(0.5, "3 → 5")], [(0, 1, "spike")]))

    space = "{http://www.w3.org/2000/svg}"
    texts = [one.text for one in svg.iter(f"{space}text")]
    assert {"a < b", "x & y", "3 → 5", "spike"} <= set(texts)
    assert len(list(svg.iter(f"{space}path"))) == 3


@pytest.mark.parametrize(
    ("points", "began", "seconds"),
    [
        ([(0, 9), (1, 0), (2, 0)], 1, 0),
        ([(1, 0), (2, 5), (3, 5), (4, 1)], 1, 3),
        ([(1, 0), (2, 5)], 1, float("inf")),
        ([(1, 3), (2, 0), (3, 3), (4, 0)], 1, 3),
    ],
)
def test_normal_again_is_when_nothing_was_above_any_more(
    points: list[tuple[float, float]], began: float, seconds: float
) -> None:
    assert recovered_s(points, began, 2.0) == seconds


def test_a_table_has_every_column_and_leaves_open_what_was_not_seen() -> None:
    series = Series()
    series.add(0.5, {"a": 1})
    series.add(1.0, {"b": 2.25})

    assert series.as_csv() == "t,a,b\n0.5,1,\n1.0,,2.25\n"
    assert series.points("b") == [(1.0, 2.25)]


async def test_a_pace_hands_out_what_is_due_whether_it_is_taken_or_not() -> None:
    pace = Pace(lambda at_s: 1_000.0 if at_s < 0.2 else 0.0, 0.3, first=7)

    await pace.run()
    taken = []
    while (one := await pace.take()) is not None:
        taken.append(one[0])

    assert 150 < pace.handed < 300
    assert taken == list(range(7, 7 + pace.handed))
