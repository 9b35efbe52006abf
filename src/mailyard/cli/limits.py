"""`mailyard limits`: what the workspace allows itself."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from mailyard.cli.client import AsJson, ask, say, say_rows
from mailyard.core.errors import InvalidInput
from mailyard.proving.client import ApiClient

app = typer.Typer(add_completion=False, no_args_is_help=True)

_PATH = "/v1/workspace/limits"
_NONE = "none"


@app.command()
def show(as_json: AsJson = False) -> None:
    """Show the limits and what was used today.

    Example: mailyard limits show
    """
    _say(ask(lambda client: client.get(_PATH)), as_json)


@app.command(name="set")
def set_limits(
    rate: Annotated[str | None, typer.Option(help="Recipients a second.")] = None,
    quota: Annotated[str | None, typer.Option(help="Recipients a day.")] = None,
    zone: Annotated[str | None, typer.Option(help="Time zone, like Europe/Rome.")] = None,
    quiet: Annotated[
        str | None, typer.Option(help="Quiet hours of recipients, like 22:00-08:00.")
    ] = None,
    cap: Annotated[
        str | None, typer.Option(help="Campaigns a contact gets in days, like 3/7.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set limits; what is not named stays, `none` takes one away.

    Example: mailyard limits set --quota 100000 --zone Europe/Rome --quiet 22:00-08:00 --cap 3/7
    """
    body: dict[str, Any] = {}
    if rate is not None:
        body["emails_per_s"] = None if rate == _NONE else _number("--rate", rate, float)
    if quota is not None:
        body["emails_per_day"] = None if quota == _NONE else _number("--quota", quota, int)
    if zone is not None:
        body["time_zone"] = zone
    if quiet is not None:
        body["quiet_from"], body["quiet_until"] = _pair("--quiet", quiet, "-")
    if cap is not None:
        number, days = _pair("--cap", cap, "/")
        body["campaigns_per_contact"] = None if number is None else _number("--cap", number, int)
        body["campaigns_days"] = None if days is None else _number("--cap", days, int)
    if not body:
        raise InvalidInput("name a limit: --rate, --quota, --zone, --quiet or --cap")

    async def work(client: ApiClient) -> Any:
        return await client.call("PATCH", _PATH, body=body)

    _say(ask(work), as_json)


def _number(option: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise InvalidInput(f"{option}: {text!r} is no number") from None


def _pair(option: str, text: str, between: str) -> tuple[str | None, str | None]:
    if text == _NONE:
        return None, None
    first, found, second = text.partition(between)
    if not found:
        raise InvalidInput(f"{option}: two values with {between} between are wanted, or none")
    return first.strip(), second.strip()


def _say(limits: dict[str, Any], as_json: bool) -> None:
    quota, cap = limits["emails_per_day"], limits["campaigns_per_contact"]
    capped = f"{cap} in {limits['campaigns_days']} days" if cap else _NONE
    quiet = limits["quiet_from"] and f"{limits['quiet_from']} to {limits['quiet_until']}"
    used = f", {limits['used_today']:,} used until {limits['resets_at']}" if quota else ""
    lines = [
        f"recipients a second    {limits['emails_per_s'] or _NONE}",
        f"recipients a day       {f'{quota:,}' if quota else _NONE}{used}",
        f"time zone              {limits['time_zone']}",
        f"quiet hours            {quiet or _NONE}",
        f"campaigns a contact    {capped}",
    ]
    say(limits, as_json, "\n".join(lines))


@app.command()
def policies(as_json: AsJson = False) -> None:
    """List the limits by name: what Gmail and Graph allow, what a person may. For operators.

    Example: mailyard limits policies
    """
    rows = ask(lambda client: client.get("/v1/limit-policies"))["items"]
    say_rows(
        rows,
        as_json,
        [
            ("Name", "name"),
            ("Units", "units"),
            ("in seconds", "window_s"),
            ("at once", "burst"),
            ("for each", "per"),
            ("About", "about"),
        ],
    )


@app.command()
def reset(
    policy: Annotated[str, typer.Argument(help="The name of the limit.")],
    subject: Annotated[str, typer.Argument(help="Whose: an address as it is counted.")],
    as_json: AsJson = False,
) -> None:
    """Give somebody all of a limit again. For operators.

    Example: mailyard limits reset general ada@example.org
    """
    path = f"/v1/limit-policies/{quote(policy, safe='')}/reset"
    answer = ask(lambda client: client.post(path, {"subject": subject}))
    say(answer, as_json, f"{subject} has all of {policy} again")
