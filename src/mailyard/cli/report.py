"""`mailyard report`: what receivers report of mail in the domains' names (DMARC, TLS)."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import ConfigurationError
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_Days = Annotated[int, typer.Option(min=1, max=400, help="So many days back.")]
_DOMAIN_COLUMNS = (
    ("Domain", "domain"),
    ("Messages", "messages"),
    ("Passed", "passed"),
    ("Reports", "reports"),
    ("Last day", "last_day"),
)
_SOURCE_COLUMNS = (
    ("Address", "source"),
    ("Messages", "messages"),
    ("DKIM", "dkim"),
    ("SPF", "spf"),
    ("Failed", "failed"),
)
_TLS_COLUMNS = (
    ("Domain", "domain"),
    ("Reported by", "organisation"),
    ("Until", "ends_at"),
    ("TLS", "succeeded"),
    ("Failed", "failed"),
)
_FILE_BYTES = 20 * 1024 * 1024


@app.command()
def domains(days: _Days = 30, as_json: AsJson = False) -> None:
    """Show how receivers saw the mail of each domain.

    Example: mailyard report domains --days 7
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/dmarc", days=days)

    say_rows(ask(work)["items"], as_json, _DOMAIN_COLUMNS)


@app.command()
def domain(
    name: Annotated[str, typer.Argument(help="The domain.")],
    days: _Days = 30,
    as_json: AsJson = False,
) -> None:
    """Show where mail in a domain's name came from, the most that failed first.

    Example: mailyard report domain example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.get(f"/v1/dmarc/{name}", days=days)

    answer = ask(work)
    if as_json:
        say(answer, True, "")
        return
    say_rows(answer["sources"], False, _SOURCE_COLUMNS)


@app.command()
def tls(
    name: Annotated[str, typer.Option("--domain", help="Of this domain alone.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the TLS reports that arrived, the newest first.

    Example: mailyard report tls --domain example.org
    """

    async def work(client: ApiClient) -> Any:
        return await client.get("/v1/tls-reports", domain=name)

    say_rows(ask(work)["items"], as_json, _TLS_COLUMNS)


@app.command()
def read(
    file: Annotated[Path, typer.Argument(help="A mail, or the file that came in one.")],
) -> None:
    """Print what a report says, as JSON. Needs no server.

    Example: mailyard report read 'google.com!example.org!1669507200!1669593599.zip'
    """
    from mailyard.protocol.mime.message import parse
    from mailyard.protocol.report_files import find_reports

    try:
        with file.open("rb") as opened:
            data = opened.read(_FILE_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{str(file)!r} cannot be read: {error}") from error
    if file.suffix.lower() != ".eml":
        data = b"Content-Type: application/octet-stream\r\n\r\n" + data
    found = find_reports(parse(data))
    for problem in found.problems:
        typer.echo(problem, err=True)
    print(msgspec.json.encode([*found.aggregates, *found.tls]).decode())
    if not found.aggregates and not found.tls:
        raise typer.Exit(1)
