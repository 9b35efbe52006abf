"""Lines over time as SVG: a few panels above one another, sharing their axis of time.

Made by ourselves because it is a hundred lines, and a plotting library would be the largest of our
requirements. Readable on light and dark pages alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

_WIDTH, _PANEL, _GAP, _LEFT, _RIGHT, _TOP, _BOTTOM = 860, 150, 34, 64, 16, 46, 40
_COLOURS = ("#2563eb", "#d97706", "#059669", "#be185d")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#6b7280}.t{font-size:15px;font-weight:600}"
    ".g{stroke:#9ca3af;stroke-opacity:.3}.m{stroke:#be185d;stroke-dasharray:3 3}"
    ".n{fill:#be185d;font-size:11px}.b{fill:#f59e0b;fill-opacity:.14}.l{fill:none;stroke-width:1.8}"
)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `stairs`: a value holds until the next."""

    label: str
    points: Points
    stairs: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines that share an axis of values, which begins at 0."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Mark:
    """An instant that goes through all panels."""

    at: float
    label: str


def chart(
    title: str,
    panels: Sequence[Panel],
    marks: Sequence[Mark] = (),
    bands: Sequence[tuple[float, float, str]] = (),
    *,
    unit: str = "s",
) -> str:
    """The picture. `bands`: (from, to, what) are shaded. `unit`: of time."""
    every = [x for panel in panels for line in panel.lines for x, _ in line.points]
    axis = _Axis(min(every, default=0.0), max(every, default=1.0))
    height = _TOP + len(panels) * (_PANEL + _GAP) + _BOTTOM - _GAP
    bottom = height - _BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>',
        f'<text class="t" x="{_LEFT}" y="20">{escape(title)}</text>',
    ]
    for start, end, what in bands:
        x, to = axis.x(start), axis.x(end)
        parts.append(
            f'<rect class="b" x="{x:.1f}" y="{_TOP}" width="{to - x:.1f}" '
            f'height="{bottom - _TOP}"/>'
            f'<text x="{x + 4:.1f}" y="{bottom - 6}">{escape(what)}</text>'
        )
    for number, panel in enumerate(panels):
        parts += _panel(panel, _TOP + number * (_PANEL + _GAP), axis)
    parts += _marks(marks, axis, bottom)
    for tick in _ticks(axis.least, axis.most, 9):
        parts.append(
            f'<text x="{axis.x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(f'<text x="{_WIDTH - _RIGHT}" y="{bottom + 34}" text-anchor="end">{unit}</text>')
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True, slots=True)
class _Axis:
    least: float
    most: float

    def x(self, value: float) -> float:
        span = (self.most - self.least) or 1.0
        return _LEFT + (value - self.least) / span * (_WIDTH - _LEFT - _RIGHT)


def _panel(panel: Panel, top: float, axis: _Axis) -> list[str]:
    ticks = _ticks(0.0, max([y for one in panel.lines for _, y in one.points], default=1.0), 4)
    most = ticks[-1] or 1.0

    def y(value: float) -> float:
        return top + _PANEL - value / most * _PANEL

    parts = [f'<text x="{_LEFT}" y="{top - 6}">{escape(panel.title)}</text>']
    for tick in ticks:
        parts.append(
            f'<line class="g" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" '
            f'y2="{y(tick):.1f}"/><text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" '
            f'text-anchor="end">{tick:,g}</text>'
        )
    labels = _WIDTH - _RIGHT
    for number, line in reversed(list(enumerate(panel.lines))):
        colour = _COLOURS[number % len(_COLOURS)]
        path = _path([(axis.x(at), y(value)) for at, value in line.points], stairs=line.stairs)
        parts.append(f'<path class="l" stroke="{colour}" d="{path}"/>')
        if len(panel.lines) > 1:
            parts.append(
                f'<text x="{labels}" y="{top - 6}" text-anchor="end" style="fill:{colour}">'
                f"{escape(line.label)}</text>"
            )
            labels -= 7 * len(line.label) + 16
    return parts


def _path(points: Points, *, stairs: bool) -> str:
    steps: list[str] = []
    for number, (x, y) in enumerate(points):
        if number == 0:
            steps.append(f"M{x:.1f} {y:.1f}")
        elif stairs:
            steps.append(f"H{x:.1f}V{y:.1f}")
        else:
            steps.append(f"L{x:.1f} {y:.1f}")
    return "".join(steps)


def _marks(marks: Sequence[Mark], axis: _Axis, bottom: float) -> list[str]:
    """Labels that would lie on one another take turns on two lines."""
    parts, last = [], [0.0, 0.0]  # where each line is taken up to
    for mark in sorted(marks, key=lambda one: one.at):
        x = axis.x(mark.at)
        row = next((one for one in (0, 1) if x > last[one]), None)
        label = mark.label if row is not None else ""  # a third would lie on the others
        if row is not None:
            last[row] = x + 7 * len(label) + 4
        parts.append(
            f'<line class="m" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{bottom}"/>'
            f'<text class="n" x="{x + 3:.1f}" y="{_TOP + 11 + 12 * (row or 0)}">'
            f"{escape(label)}</text>"
        )
    return parts


def _ticks(least: float, most: float, about: int) -> list[float]:
    """Round numbers that reach from `least` to beyond `most`."""
    rough = max((most - least) / about, 1e-9)
    power = 10.0 ** floor(log10(rough))
    step = next(power * one for one in (1.0, 2.0, 2.5, 5.0, 10.0) if power * one >= rough)
    first, last = ceil(least / step - 1e-9), ceil(most / step - 1e-9)
    return [round(number * step, 9) for number in range(first, max(last, first + 1) + 1)]
