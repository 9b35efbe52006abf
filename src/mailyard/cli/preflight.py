"""How a preflight is shown in a terminal."""

from typing import Any

import typer

from mailyard.cli import exit_code
from mailyard.cli.client import console, say


def say_preflight(found: dict[str, Any], as_json: bool) -> None:
    """The items, the worst first. Exit status 1 when one blocks."""
    if as_json:
        say(found, as_json, "")
    else:
        out = console()
        for level in ("block", "warn", "pass"):
            for item in (one for one in found["items"] if one["level"] == level):
                out.print(f"{level:<5} {item['message']}", soft_wrap=True)
                for line in item["details"]:
                    out.print(f"        {line}", soft_wrap=True)
                if level != "pass":
                    out.print(f"        {item['source']}", soft_wrap=True)
    if found["level"] == "block":
        raise typer.Exit(exit_code.REFUSED)
