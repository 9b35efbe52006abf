"""The autoscaler's experiments, small: each runs to its end on a platform of its own, with real
processes, and says what it saw.

How soon something happened is judged by `mailyard experiment`, on a machine that has nothing else
to do. Everything else has to hold here too, and verdict, table and picture are of what was seen.
"""

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from mailyard.cli.experiment import write
from mailyard.core.limits import MIB
from mailyard.proving.experiments import ceiling, leak, spike
from mailyard.proving.experiments.series import Outcome, recovered_s

# Several times what one can do, for that is measured while others are busy too.
MAIL = spike.Plan(
    before_s=2.0, spike_s=25.0, after_s=4.0, share=0.01, before=0.4, most=4, quiet_s=6.0
)
REQUESTS = replace(MAIL, spike_s=30.0, share=0.02, before=0.3)
LEAK = replace(leak.SHORT, leak_bytes_per_s=3 * MIB)  # seen on its way, however seldom one looks
FULL = ceiling.Plan(held_s=10.0, after_s=8.0, share=0.01, times=6.0, budget=40)
NAMES = ("inbound-spike", "api-spike", "leak", "ceiling")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome | BaseException]:
    """Of all, at the same time: what is scaled is held to a hundredth of a core each."""

    def folder(name: str) -> Path:
        made = tmp_path_factory.mktemp(name)
        made.chmod(0o711)  # the database is another user's when we are root
        return made

    runs: dict[str, Coroutine[Any, Any, Outcome]] = {
        "inbound-spike": spike.inbound(folder("inbound"), MAIL, say),
        "api-spike": spike.api(folder("api"), REQUESTS, say),
        "leak": leak.run(folder("leak"), LEAK, say),
        "ceiling": ceiling.run(folder("ceiling"), FULL, say),
    }

    async def all_of_them() -> list[Outcome | BaseException]:
        return await asyncio.gather(*runs.values(), return_exceptions=True)

    return dict(zip(runs, asyncio.run(all_of_them()), strict=True))


def say(_text: str) -> None: ...


@pytest.fixture(params=NAMES)
def outcome(
    request: pytest.FixtureRequest, outcomes: dict[str, Outcome | BaseException]
) -> Outcome:
    found = outcomes[request.param]
    if isinstance(found, BaseException):
        raise found
    assert found.name == request.param
    return found


def test_everything_holds_that_is_not_of_time(outcome: Outcome) -> None:
    failed = [one for one in outcome.checks if not (one.holds or one.of_time)]
    assert not failed, outcome.decisions
    assert outcome.figures["promised"] > 100
    assert any(one.what == "no mail lost, none twice" for one in outcome.checks)


def test_the_verdict_is_of_what_was_seen(outcome: Outcome) -> None:
    assert outcome.holds == all(one.holds for one in outcome.checks)
    assert outcome.as_json()["holds"] is outcome.holds
    if outcome.name.endswith("-spike"):
        ((began_s, _, _),) = outcome.bands
        normal_s = 2.0 if outcome.name == "inbound-spike" else 0.5
        back_s = recovered_s(outcome.series.points("oldest_work_s"), began_s, normal_s)
        (bar,) = [one for one in outcome.checks if one.of_time]
        assert bar.holds is (0 < back_s <= 60)
        assert f"{back_s:.1f} s" in bar.seen


def test_table_figures_and_picture_are_written(outcome: Outcome, tmp_path: Path) -> None:
    write(outcome, tmp_path)

    rows = list(csv.DictReader(io.StringIO((tmp_path / f"{outcome.name}.csv").read_text())))
    figures = json.loads((tmp_path / f"{outcome.name}.json").read_text())
    picture = ElementTree.parse(tmp_path / f"{outcome.name}.svg")
    assert len(rows) == len(outcome.series.rows) > 20
    assert [one["reason"] for one in figures["decisions"]] == [
        one.reason for one in outcome.decisions
    ]
    assert [one["holds"] for one in figures["checks"]] == [one.holds for one in outcome.checks]
    texts = {one.text for one in picture.iter(f"{SVG}text")}
    assert {panel.title for panel in outcome.panels} <= texts
    marks = [one for one in picture.iter(f"{SVG}line") if one.get("class") == "m"]
    assert len(marks) == len(outcome.decisions)


def test_the_command_ends_with_its_verdict(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mailyard.cli.main"),
            *("experiment", "day", "--json", "--folder", str(tmp_path)),
        ],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["holds"] else 1), done.stderr
    assert {one.name for one in tmp_path.iterdir()} == {"day.csv", "day.json", "day.svg"}
