"""`mailyard queue`: depths and dead letters, pausing and redriving."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

import typer

from mailyard.app.foundation import provision_topics
from mailyard.cli import exit_code
from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import ConfigurationError
from mailyard.proving.client import ApiClient
from mailyard.settings import load_settings

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Queue = Annotated[str, typer.Argument(help="A queue's name, as `mailyard queue list` shows it.")]
_QUEUE_COLUMNS = (
    ("Queue", "queue"),
    ("Ready", "ready"),
    ("Scheduled", "scheduled"),
    ("Leased", "leased"),
    ("Dead", "dead"),
    ("Oldest s", "oldest_age_s"),
    ("Paused", "paused"),
)
_DEAD_COLUMNS = (
    ("ID", "id"),
    ("Queue", "queue"),
    ("Kind", "kind"),
    ("Attempts", "attempts"),
    ("Buried", "buried_at"),
    ("Tried again", "again_at"),
    ("Error", "error"),
)
_TOPIC_COLUMNS = (
    ("Topic", "topic"),
    ("Partitions", "partitions"),
    ("Replicas", "replicas"),
    ("Outcome", "outcome"),
)
_REDRIVE_AT_ONCE = 500


@app.command(name="list")
def list_queues(as_json: AsJson = False) -> None:
    """Show how much waits in each queue.

    Example: mailyard queue list
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/queues")

    say_rows(ask(work)["items"], as_json, _QUEUE_COLUMNS)


@app.command()
def pause(queue: _Queue, as_json: AsJson = False) -> None:
    """Give out no jobs of a queue until it is resumed; they wait.

    Example: mailyard queue pause email-bulk
    """
    _set(queue, "pause", as_json)


@app.command()
def resume(queue: _Queue, as_json: AsJson = False) -> None:
    """Go on with a paused queue.

    Example: mailyard queue resume email-bulk
    """
    _set(queue, "resume", as_json)


@app.command()
def dead(
    queue: Annotated[str | None, typer.Option(help="Only of this queue.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs that were given up, the newest first, with the reason.

    Example: mailyard queue dead --queue email-send
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/dead-letters", queue=queue, limit=limit)

    say_rows(ask(work)["items"], as_json, _DEAD_COLUMNS)


@app.command()
def redrive(
    job: Annotated[list[int] | None, typer.Argument(help="Ids of dead letters.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
    queue: Annotated[str | None, typer.Option(help="With --all: only of this queue.")] = None,
    as_json: AsJson = False,
) -> None:
    """Try jobs again that were given up. Exit status 1 when none of them was there.

    Example: mailyard queue redrive 4711 4712
    """
    if bool(job) == everything:
        raise typer.BadParameter("give ids of dead letters, or --all")

    async def work(client: ApiClient) -> list[int]:
        if job:
            return await _redrive(client, job)
        return await _redrive_all(client, queue)

    redriven = ask(work)
    say({"ids": redriven}, as_json, f"{len(redriven)} redriven")
    if job and not redriven:
        raise typer.Exit(exit_code.REFUSED)


@app.command()
def provision(as_json: AsJson = False) -> None:
    """Make the topics of the queues that are kept in Kafka, or grow them. Does no harm twice.

    Example: MAILYARD_QUEUE_ENGINE=kafka MAILYARD_KAFKA_SERVERS=kafka1:9092 mailyard queue provision
    """
    settings = load_settings()
    if settings.queue_engine != "kafka":
        raise ConfigurationError(
            "MAILYARD_QUEUE_ENGINE is postgres, whose queues `mailyard migrate` makes; topics are "
            "made where it is kafka"
        )
    done = asyncio.run(provision_topics(settings))
    say_rows([asdict(one) for one in done], as_json, _TOPIC_COLUMNS)


async def _redrive(client: ApiClient, ids: list[int]) -> list[int]:
    redriven: list[int] = []
    for start in range(0, len(ids), _REDRIVE_AT_ONCE):
        some = ids[start : start + _REDRIVE_AT_ONCE]
        redriven += (await client.post("/v1/dead-letters/redrive", {"ids": some}))["ids"]
    return redriven


async def _redrive_all(client: ApiClient, queue: str | None) -> list[int]:
    """From the newest down, so that what dies again meanwhile is not redriven without end."""
    redriven: list[int] = []
    before: int | None = None
    while True:
        page = await client.get(
            "/v1/dead-letters", queue=queue, before=before, limit=_REDRIVE_AT_ONCE
        )
        ids = [letter["id"] for letter in page["items"]]
        redriven += await _redrive(client, ids)
        before = page["next_before"]
        if before is None:
            return redriven


def _set(queue: str, word: str, as_json: bool) -> None:
    async def work(client: ApiClient) -> Any:
        return await client.post(f"/v1/queues/{queue}/{word}")

    state = ask(work)
    say(state, as_json, f"{queue} is {'paused' if state['paused'] else 'running'}")
