"""`mailyard monitoring`: figures, alerts, decisions; what other systems need to watch Mailyard."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from mailyard.app import Application
from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.fleet.alerts.export import grafana_dashboard, prometheus_rules
from mailyard.proving.client import ApiClient
from mailyard.settings import load_settings

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command()
def figures(as_json: AsJson = False) -> None:
    """Show every figure of the installation as it is now.

    Example: mailyard monitoring figures
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/monitoring/metrics")

    found = ask(work)
    rows = [
        {"figure": name, "subject": subject, "value": "" if value is None else f"{value:.6g}"}
        for name, values in found["figures"].items()
        for subject, value in values.items()
    ]
    columns = (("Figure", "figure"), ("Of", "subject"), ("Value", "value"))
    say_rows(found if as_json else rows, as_json, columns)


@app.command()
def alerts(
    everything: Annotated[bool, typer.Option("--all", help="Those that are over too.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what is not as it should be.

    Example: mailyard monitoring alerts --all
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/monitoring/alerts", only_open="false" if everything else "true")

    columns = (
        ("Rule", "rule"),
        ("Of", "subject"),
        ("Level", "level"),
        ("What", "about"),
        ("Began", "started_at"),
        ("Ended", "ended_at"),
    )
    say_rows(ask(work)["items"], as_json, columns)


@app.command("load-tests")
def load_tests(as_json: AsJson = False) -> None:
    """List what the installation was seen to bear: every demonstration run on it.

    Example: mailyard monitoring load-tests
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/load-tests")

    columns = (
        ("When", "at"),
        ("Version", "version"),
        ("Recipients", "recipients"),
        ("A second", "per_second"),
        ("Clean", "clean"),
        ("Processes", "processes"),
    )
    say_rows(ask(work)["items"], as_json, columns)


@app.command()
def scaling(as_json: AsJson = False) -> None:
    """List what the autoscaler did, and why.

    Example: mailyard monitoring scaling
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/scaling/decisions")

    columns = (
        ("When", "at"),
        ("Group", "group"),
        ("What", "kind"),
        ("Was", "was"),
        ("Became", "became"),
        ("Why", "reason"),
    )
    say_rows(ask(work)["items"], as_json, columns)


@app.command(name="clear-cache")
def clear_cache(as_json: AsJson = False) -> None:
    """Empty the caches of all processes.

    Example: mailyard monitoring clear-cache
    """

    async def work(client: ApiClient) -> Any:
        return await client.post("/monitoring/operations/clear-cache")

    say(ask(work), as_json, "cleared")


@app.command(name="reset-limits")
def reset_limits(
    user: Annotated[str, typer.Argument(help="An address, or the id of a person or a key.")],
    as_json: AsJson = False,
) -> None:
    """Fill the rate limits of a person or an API key again.

    Example: mailyard monitoring reset-limits ada@example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.post(f"/monitoring/operations/reset-user-limits/{quote(user, safe='')}")

    say(ask(work), as_json, f"reset: {user}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where the two files are written.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write Prometheus rules and a Grafana dashboard, made from the alert rules in force.

    Example: mailyard monitoring export /etc/prometheus
    """
    rules = Application(load_settings()).alert_rules
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "mailyard.rules.yml": prometheus_rules(rules),
        "mailyard.dashboard.json": grafana_dashboard(rules),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")
    written = [str(folder / name) for name in texts]
    say({"files": written}, as_json, "\n".join(written))
