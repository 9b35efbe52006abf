"""`mailyard smtp`: the role alone, against a shared database."""

import typer

from mailyard.cli.roles import run_alone

app = typer.Typer(add_completion=False)


@app.command()
def smtp() -> None:
    """Run one SMTP listener, until SIGTERM, then drain.

    Example: MAILYARD_SMTP_PORT=2526 mailyard smtp
    """
    run_alone("smtp")
