"""`mailyard experiment`: the autoscaler under load, on a platform of its own, with a verdict."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mailyard.cli import exit_code, experiment_day
from mailyard.cli.client import AsJson, console, progress_console
from mailyard.core.errors import InvalidInput
from mailyard.proving.experiments import ceiling, leak, spike
from mailyard.proving.experiments.series import Outcome

app = typer.Typer(add_completion=False)

Say = Callable[[str], None]
Run = Callable[[Path, bool, Say], Awaitable[Outcome]]


def _inbound(folder: Path, short: bool, say: Say) -> Awaitable[Outcome]:
    return spike.inbound(folder, spike.SHORT if short else spike.Plan(), say)


def _api(folder: Path, short: bool, say: Say) -> Awaitable[Outcome]:
    return spike.api(folder, spike.API_SHORT if short else spike.API, say)


def _leak(folder: Path, short: bool, say: Say) -> Awaitable[Outcome]:
    return leak.run(folder, leak.SHORT if short else leak.Plan(), say)


def _ceiling(folder: Path, short: bool, say: Say) -> Awaitable[Outcome]:
    return ceiling.run(folder, ceiling.SHORT if short else ceiling.Plan(), say)


async def _day(_folder: Path, _short: bool, _say: Say) -> Outcome:
    return experiment_day.day()


EXPERIMENTS: dict[str, Run] = {
    "day": _day,
    "inbound-spike": _inbound,
    "api-spike": _api,
    "leak": _leak,
    "ceiling": _ceiling,
}


@app.command()
def experiment(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(EXPERIMENTS)}; all without one.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Where tables (CSV), figures (JSON), plots (SVG) go.")
    ] = None,
    short: Annotated[bool, typer.Option("--short", help="Shorter, and smaller.")] = False,
    as_json: AsJson = False,
) -> None:
    """Do something to a platform of its own that scales itself, and say what became of it.

    Each starts on free ports in a temporary folder and takes one to three minutes; `day` is a
    simulation and takes none.

    Exit status 0: everything held that has to. 1: something did not. 69: no verdict.

    Example: mailyard experiment inbound-spike --folder plots
    """
    chosen = names or list(EXPERIMENTS)
    for name in chosen:
        if name not in EXPERIMENTS:
            raise InvalidInput(f"no experiment {name!r}; there are: {', '.join(EXPERIMENTS)}")
    held = True
    for name in chosen:
        outcome = _one(name, short=short, as_json=as_json)
        held = held and outcome.holds
        if folder is not None:
            write(outcome, folder)
        _tell(outcome, as_json=as_json)
    if not held:
        raise typer.Exit(exit_code.REFUSED)


def _one(name: str, *, short: bool, as_json: bool) -> Outcome:
    def say(text: str) -> None:
        if not as_json:
            progress_console().print(f"{name}: {text}")

    with tempfile.TemporaryDirectory(prefix="mailyard-experiment-") as own:
        work = Path(own) / "platform"
        work.mkdir()
        return asyncio.run(_run(EXPERIMENTS[name], work, short, say))


async def _run(run: Run, folder: Path, short: bool, say: Say) -> Outcome:
    return await run(folder, short, say)


def write(outcome: Outcome, folder: Path) -> None:
    """Its table, figures and picture: NAME.csv, NAME.json and NAME.svg in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = msgspec.json.format(msgspec.json.encode(outcome.as_json()), indent=2).decode()
    for ending, text in (
        ("csv", outcome.series.as_csv()),
        ("json", figures + "\n"),
        ("svg", outcome.as_svg()),
    ):
        (folder / f"{outcome.name}.{ending}").write_text(text, "utf-8")


def _tell(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(outcome.as_json()).decode())
        return
    out = console()
    out.print(f"\n{outcome.title}")
    for check in outcome.checks:
        out.print(f"  {'holds' if check.holds else 'FAILS'}  {check.what}: {check.seen}")
    for row in outcome.decisions:
        out.print(f"  {row.at_s:7.1f} {outcome.unit}  {row.group} {row.told}  {row.reason}")
