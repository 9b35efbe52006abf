"""`mailyard api`: the role alone, against a shared database."""

import typer

from mailyard.cli.roles import run_alone

app = typer.Typer(add_completion=False)


@app.command()
def api() -> None:
    """Run one API and page process, until SIGTERM, then drain.

    Example: MAILYARD_PORT=8026 mailyard api
    """
    run_alone("api")
