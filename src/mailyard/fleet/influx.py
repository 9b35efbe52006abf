"""Figures as InfluxDB's line protocol, for who keeps series there.

https://docs.influxdata.com/influxdb/v1/write_protocols/line_protocol_reference/ : a measurement,
its tags, its fields, a time in nanoseconds. A measurement is the figure's first word, a tag its
subject; what is not known is left out.
"""

import re
from collections.abc import Awaitable, Callable

from mailyard.fleet.figures import Figures
from mailyard.fleet.look import Look

Post = Callable[[bytes], Awaitable[None]]
_SPECIAL = re.compile(r"([,= \\])")


class InfluxSink:
    """`post` sends a body and raises Unavailable. What is not taken is lost: series, not mail."""

    def __init__(self, post: Post, *, installation: str) -> None:
        self._post = post
        self._installation = installation

    async def write(self, look: Look, figures: Figures) -> None:
        """One round of figures."""
        body = lines(figures, self._installation, look.at_s)
        if body:
            await self._post(body)


def lines(figures: Figures, installation: str, at_s: float) -> bytes:
    """The line protocol of all figures that are known."""
    points: dict[tuple[str, str], dict[str, float]] = {}
    for name, values in figures.items():
        measurement, _, field = name.partition(".")
        for subject, value in values.items():
            if value is not None:
                points.setdefault((measurement, subject), {})[field] = value
    told = []
    for (measurement, subject), fields in sorted(points.items()):
        tags = f",installation={_escaped(installation)}"
        tags += f",subject={_escaped(subject)}" if subject else ""
        pairs = ",".join(f"{_escaped(name)}={value:.9g}" for name, value in fields.items())
        told.append(f"mailyard_{measurement}{tags} {pairs} {int(at_s * 1e9)}")
    return "\n".join(told).encode()


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text.replace("\n", " "))
