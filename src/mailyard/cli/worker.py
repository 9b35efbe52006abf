"""`mailyard worker`: the role alone, against a shared database."""

from typing import Annotated

import typer

from mailyard.cli.roles import run_alone

app = typer.Typer(add_completion=False)


@app.command()
def worker(
    shard: Annotated[
        str, typer.Option(help="The database cluster that it works for; home: the first one.")
    ] = "",
) -> None:
    """Run one worker, until SIGTERM, then drain.

    Example: MAILYARD_DATABASE_URL=postgresql://mailyard@db/mailyard mailyard worker
    """
    run_alone("worker", shard)
