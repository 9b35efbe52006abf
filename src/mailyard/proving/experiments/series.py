"""What an experiment saw, second by second, and what it says about it."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailyard.proving.experiments.chart import Mark, Panel, chart


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to hold, with the figure that was seen. `of_time`: how soon something
    happened, for which a machine must have nothing else to do."""

    what: str
    seen: str
    holds: bool
    of_time: bool = False


class Series:
    """Rows of numbers over time. A column that a row lacks stays empty."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def add(self, at_s: float, values: Mapping[str, float]) -> None:
        """What was seen at `at_s`."""
        self.rows.append({"t": round(at_s, 3), **{k: round(v, 3) for k, v in values.items()}})

    def points(self, name: str) -> list[tuple[float, float]]:
        """(t, value) of one column."""
        return [(row["t"], row[name]) for row in self.rows if name in row]

    def as_csv(self) -> str:
        """With a line of names."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        out = io.StringIO()
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return out.getvalue()


@dataclass(frozen=True, slots=True)
class Decided:
    """A row of the autoscaler's book, by the experiment's clock."""

    at_s: float
    group: str
    kind: str
    was: int
    became: int
    reason: str

    @property
    def told(self) -> str:
        """For a mark in the picture."""
        return self.kind if self.was == self.became else f"{self.was} → {self.became}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an experiment ended. `settings`: what it was run with; `notes`: figures by name."""

    name: str
    title: str
    settings: Mapping[str, Any]
    figures: Mapping[str, float]
    checks: Sequence[Check]
    decisions: Sequence[Decided]
    series: Series
    panels: Sequence[Panel]
    bands: Sequence[tuple[float, float, str]] = ()
    unit: str = "s"  # of time, in the table and the picture

    @property
    def holds(self) -> bool:
        return all(one.holds for one in self.checks)

    def as_json(self) -> dict[str, Any]:
        """Everything but the series, which is a table of its own."""
        return {
            "experiment": self.name,
            "title": self.title,
            "holds": self.holds,
            "unit_of_time": self.unit,
            "settings": dict(self.settings),
            "figures": dict(self.figures),
            "checks": [
                {
                    "what": one.what,
                    "seen": one.seen,
                    "holds": one.holds,
                    "of_time": one.of_time,
                }
                for one in self.checks
            ],
            "decisions": [
                {
                    "t": one.at_s,
                    "group": one.group,
                    "kind": one.kind,
                    "was": one.was,
                    "became": one.became,
                    "reason": one.reason,
                }
                for one in self.decisions
            ],
        }

    def as_svg(self) -> str:
        """The picture: the panels over one axis of time, each decision a line through them."""
        marks = [Mark(one.at_s, one.told) for one in self.decisions]
        return chart(self.title, self.panels, marks, self.bands, unit=self.unit)


def recovered_s(points: Sequence[tuple[float, float]], began_s: float, normal: float) -> float:
    """How long after `began_s` the last point above `normal` was; 0: it never was above."""
    above = [at_s for at_s, value in points if at_s >= began_s and value > normal]
    if not above:
        return 0.0
    after = [at_s for at_s, _ in points if at_s > above[-1]]
    return (after[0] if after else float("inf")) - began_s
