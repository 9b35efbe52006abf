"""`mailyard mcp`: inboxes for AI agents, by the Model Context Protocol."""

import asyncio
import socket
from typing import Annotated

import typer

from mailyard.cli.client import api_key
from mailyard.core.errors import ConfigurationError
from mailyard.settings import load_settings

app = typer.Typer(add_completion=False)


@app.command()
def mcp(
    http: Annotated[
        str, typer.Option(help="Serve HTTP at this HOST:PORT; without it, standard input.")
    ] = "",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name by which clients reach the HTTP server, besides this machine's."),
    ] = None,
) -> None:
    """Serve Mailyard to AI agents. Over standard input with MAILYARD_API_KEY; over HTTP each
    client brings a key of its own.

    Example: mailyard mcp --http 127.0.0.1:8030
    """
    try:
        from mailyard.mcp.serve import over_http, over_stdio
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the package {error.name!r} is missing: pip install 'mailyard[mcp]'"
        ) from None
    settings = load_settings()
    if not http:
        asyncio.run(over_stdio(settings.api_url, api_key(settings)))
        return
    host, _, port = http.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"--http is {http!r}; it looks like 127.0.0.1:8030")
    try:
        listener = socket.create_server((host.strip("[]"), int(port)), family=_family(host))
    except OSError as error:
        raise ConfigurationError(f"cannot serve at {http}: {error.strerror or error}") from None
    print(f"MCP at http://{host}:{port}/mcp, over the API at {settings.api_url}", flush=True)
    asyncio.run(over_http(settings.api_url, listener, allow_host or []))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
