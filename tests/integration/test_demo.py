"""The demonstration end to end: on a platform of its own, and by the page's button."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mailyard.app import Application
from mailyard.bus.live import DEMO_PROGRESS
from mailyard.core.errors import Conflict, InvalidInput
from mailyard.proving.own_platform import OwnPlatform
from mailyard.settings import load_settings
from mailyard.storage.queries import Query

FIRST_WORKSPACE = Query("SELECT id FROM workspace")


async def test_the_demonstration_starts_a_platform_of_its_own_and_stops_it_again(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    tmp_path = tmp_path_factory.mktemp("demo")  # short: a socket's path has 107 characters
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("MAILYARD_")},
        "MAILYARD_URL": "http://127.0.0.1:9",
        "TMPDIR": str(tmp_path),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mailyard.cli.main", "demo", "--recipients", "300", "--json"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    verdict = json.loads(out.strip().splitlines()[-1])
    assert process.returncode == 0
    assert {
        name: verdict[name] for name in ("sent", "received", "lost", "twice", "wrong", "unknown")
    } == {"sent": 300, "received": 300, "lost": 0, "twice": 0, "wrong": 0, "unknown": 0}
    assert verdict["seconds"] > 0
    assert verdict["per_second"] > 0
    assert os.listdir(tmp_path) == []  # noqa: PTH208
    assert _processes_in(tmp_path) == []


async def test_the_button_runs_it_in_a_worker_and_keeps_the_verdict(tmp_path: Path) -> None:
    platform = OwnPlatform(tmp_path)
    async with platform:
        application = Application(load_settings(platform.environment))
        await application.open()
        try:
            workspace_id = await application.database.fetchval(FIRST_WORKSPACE)
            demos = application.demos
            with pytest.raises(InvalidInput):
                await demos.start(workspace_id, 0)
            begun = await demos.start(workspace_id, 150)
            with pytest.raises(Conflict):
                await demos.start(workspace_id, 1)
            async with asyncio.timeout(90):
                while (now := await demos.get(workspace_id, begun.id)).state != "finished":
                    assert now.state in ("queued", "running"), now.error
                    await asyncio.sleep(0.1)
            latest = await demos.latest(workspace_id)
            told = await _told(application)
            load_test = await application.load_tests.last(1)
        finally:
            await application.close()
    assert latest == now
    assert now.verdict is not None
    assert (now.verdict["received"], now.verdict["clean"]) == (150, True)
    assert load_test is not None
    assert (load_test.origin, load_test.recipients, load_test.clean) == ("page", 150, True)
    assert load_test.processes["api"] == 1
    assert told[-1]["state"] == "finished"
    assert told[-1]["verdict"] == now.verdict
    assert len({item["stage"] for item in told}) > 2


async def _told(application: Application) -> list[dict[str, Any]]:
    """The progress events, once the last one is settled."""
    while True:
        events = await application.live.read_after(await application.live.oldest())
        told = [event.item for event in events if event.kind == DEMO_PROGRESS]
        if told and told[-1]["state"] == "finished":
            return told
        await asyncio.sleep(0.05)


def _processes_in(folder: Path) -> list[str]:
    """Command lines of processes that still know of `folder`."""
    found = []
    for status in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in status.read_bytes():
                found.append((status.parent / "cmdline").read_text())
        except OSError:
            continue
    return found
