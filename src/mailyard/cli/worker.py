"""`mailyard worker`: the role alone, against a shared database."""

import typer

from mailyard.cli.roles import run_alone

app = typer.Typer(add_completion=False)


@app.command()
def worker() -> None:
    """Run one worker, until SIGTERM, then drain.

    Example: MAILYARD_DATABASE_URL=postgresql://mailyard@db/mailyard mailyard worker
    """
    run_alone("worker")
