"""`mailyard demo`: the demonstration, on the platform that runs here or on one of its own."""

import asyncio
import tempfile
from pathlib import Path
from secrets import token_hex
from typing import Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, api_key, progress_console, say
from mailyard.core.errors import Unavailable
from mailyard.fleet.stage import parse_stage
from mailyard.proving.client import ApiClient, ApiProblem
from mailyard.proving.demonstration import RECIPIENTS_MAX, STAGES, Demo, Stage, Verdict
from mailyard.proving.ordeal import Outcome, run_ordeal
from mailyard.proving.over_http import HttpPlatform
from mailyard.proving.own_platform import OwnPlatform
from mailyard.proving.turns import Turns
from mailyard.settings import Settings, load_settings

app = typer.Typer(add_completion=False)
_START_S = 180.0  # three brokers on a small machine


@app.command()
def demo(
    recipients: Annotated[
        int, typer.Option(min=1, max=RECIPIENTS_MAX, help="How many inboxes get a mail.")
    ] = 1_000,
    own: Annotated[
        bool, typer.Option("--own", help="Start a platform of its own even when one runs.")
    ] = False,
    stage: Annotated[
        str | None,
        typer.Option(help="Start a platform of its own at this stage, as `mailyard up` does."),
    ] = None,
    kills: Annotated[
        bool,
        typer.Option(
            "--kills",
            help="On a platform of its own: repeat it while one process of each kind is killed "
            "with SIGKILL in turn.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a campaign to inboxes of its own over real SMTP, open every one, compare, judge.

    Uses the platform that runs here (MAILYARD_URL, MAILYARD_API_KEY); when none runs, or with
    --own, --stage or --kills, starts one on free ports in a temporary folder and stops it again.

    Exit status 0: nothing lost, twice or wrong. 1: a verdict that is not clean. 69: no verdict.

    Example: mailyard demo --recipients 50000
    Example: mailyard demo --recipients 300 --stage 3 --kills
    """
    settings = load_settings()
    if kills or own or stage is not None:
        outcome = asyncio.run(_own(settings, recipients, stage, kills=kills, shown=not as_json))
    else:
        outcome = asyncio.run(_demo(settings, recipients, shown=not as_json))
    told = _told_of_kills(outcome) if isinstance(outcome, Outcome) else _told(outcome)
    say(outcome.as_json(), as_json, told)
    if not outcome.clean:
        raise typer.Exit(exit_code.REFUSED)


async def _demo(settings: Settings, recipients: int, *, shown: bool) -> Verdict | Outcome:
    if await _answers(settings):
        return await _run(settings.api_url, api_key(settings), recipients, shown=shown)
    if shown:
        progress_console().print("No platform runs here: starting one for the demonstration")
    return await _own(settings, recipients, None, kills=False, shown=shown)


async def _own(
    settings: Settings, recipients: int, stage: str | None, *, kills: bool, shown: bool
) -> Verdict | Outcome:
    """On a platform of its own, at the stage that was asked for or that the settings name."""
    folder = Path(tempfile.mkdtemp(prefix="mailyard-demo-"))
    told = {"MAILYARD_STAGE": str(parse_stage(stage).value if stage else settings.stage)}
    if settings.stage_file is not None:
        told["MAILYARD_STAGE_FILE"] = str(settings.stage_file)
    platform = OwnPlatform(folder, told, start_s=_START_S)
    console = progress_console()

    def log(line: str) -> None:
        if shown:
            console.print(line)

    try:
        address = await platform.start()

        async def demonstrate() -> Verdict:
            return await _run(address.url, address.api_key, recipients, shown=shown and not kills)

        if kills:
            turns = Turns(platform, log=log)
            return await run_ordeal(turns, demonstrate, log=lambda one: log(_told(one)))
        return await demonstrate()
    finally:
        await asyncio.shield(platform.stop())
        await asyncio.to_thread(platform.remove)


async def _answers(settings: Settings) -> bool:
    client = ApiClient(settings.api_url, "", timeout_s=5.0)
    try:
        await client.request("GET", "/health/live")
    except Unavailable:
        return False
    finally:
        await client.close()
    return True


async def _run(url: str, key: str, recipients: int, *, shown: bool) -> Verdict:
    client = ApiClient(url, key)
    bars = Progress(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=progress_console(),
        disable=not shown,
    )
    tasks = {name: bars.add_task(name, total=recipients, start=False) for name in STAGES}

    def report(stage: Stage) -> None:
        bars.start_task(tasks[stage.name])
        bars.update(tasks[stage.name], completed=stage.done)

    demo = Demo(HttpPlatform(client), run=token_hex(4), recipients=recipients, report=report)
    try:
        with bars:
            verdict = await demo.run()
        await _record(client, verdict)
        return verdict
    finally:
        await client.close()


async def _record(client: ApiClient, verdict: Verdict) -> None:
    """Leave the verdict with the installation, which may ask when it was last tried under load."""
    said = verdict.as_json()
    del said["clean"]  # follows from the rest
    try:
        await client.post("/v1/load-tests", said)
    except (ApiProblem, Unavailable) as problem:
        progress_console().print(f"Not recorded as a load test: {problem}", markup=False)


def _told_of_kills(outcome: Outcome) -> str:
    told = outcome.as_json()
    words = ", ".join(f"{word} {told[word]:,}" for word in ("received", "lost", "twice", "wrong"))
    return (
        f"{'Clean' if outcome.clean else 'NOT CLEAN'}: {len(outcome.verdicts)} demonstrations "
        f"while {', '.join(turn.kind for turn in outcome.turns)} were killed in turn: sent "
        f"{told['sent']:,}, {words}, unknown {told['unknown']:,}"
    )


def _told(verdict: Verdict) -> str:
    unknown = f", unknown {verdict.unknown:,}" if verdict.unknown else ""
    return (
        f"{'Clean' if verdict.clean else 'NOT CLEAN'}: sent {verdict.sent:,}, "
        f"received {verdict.received:,}, lost {verdict.lost:,}, twice {verdict.twice:,}, "
        f"wrong content {verdict.wrong:,}{unknown}; "
        f"{verdict.seconds:.1f} s, {verdict.per_second:,} a second "
        f"(contacts imported in {verdict.import_seconds:.1f} s)"
    )
