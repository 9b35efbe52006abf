"""The autoscaler's experiments in their short forms.

The long forms, which make the pictures in docs/experiments, are `mailyard experiment`.
"""

import asyncio
from pathlib import Path

import pytest

from mailyard.proving.experiments import ceiling, leak, spike
from mailyard.proving.experiments.series import Outcome


def held(outcome: Outcome) -> None:
    failed = [f"{one.what}: {one.seen}" for one in outcome.checks if not one.holds]
    assert not failed, (outcome.name, failed, outcome.decisions)


def say(_text: str) -> None: ...


@pytest.mark.timeout(300)
async def test_ten_times_the_mail_is_back_to_normal_within_a_minute(tmp_path: Path) -> None:
    held(await spike.inbound(tmp_path, spike.SHORT, say))


@pytest.mark.timeout(300)
async def test_ten_times_the_requests_are_back_to_normal_within_a_minute(tmp_path: Path) -> None:
    held(await spike.api(tmp_path, spike.API_SHORT, say))


@pytest.mark.timeout(300)
async def test_a_worker_that_leaks_is_replaced_and_a_full_database_holds_back(
    tmp_path: Path,
) -> None:
    for name in ("leak", "ceiling"):
        (tmp_path / name).mkdir()

    outcomes = await asyncio.gather(
        leak.run(tmp_path / "leak", leak.SHORT, say),
        ceiling.run(tmp_path / "ceiling", ceiling.SHORT, say),
    )

    for outcome in outcomes:
        held(outcome)
