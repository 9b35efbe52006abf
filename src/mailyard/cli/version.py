"""`mailyard version`."""

import json
from typing import Annotated

import typer

from mailyard import __version__

app = typer.Typer(add_completion=False)


@app.command()
def version(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Print the version.

    Example: mailyard version
    """
    print(json.dumps({"version": __version__}) if as_json else f"mailyard {__version__}")
