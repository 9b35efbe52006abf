"""`mailyard region`: the regions, and taking over a lost one."""

import asyncio
import json
from typing import Annotated

import typer

from mailyard.cli.client import AsJson, ask, say_rows

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.command(name="list")
def list_regions(as_json: AsJson = False) -> None:
    """List the regions, and how the copies stand that are kept here. For operators.

    Example: mailyard region list
    """
    rows = ask(lambda client: client.get("/v1/regions"))["items"]
    if not as_json:
        rows = [
            {
                **row,
                "here": "here" if row["here"] else "",
                "smtp": ", ".join(row["smtp"]),
                "copy": (row["copy"] or {}).get("state", ""),
                "until": (row["copy"] or {}).get("last_commit_at") or "",
            }
            for row in rows
        ]
    say_rows(
        rows,
        as_json,
        [
            ("Region", "name"),
            ("", "here"),
            ("API", "api"),
            ("Mail servers", "smtp"),
            ("Copy", "copy"),
            ("Last commit in it", "until"),
        ],
    )


@app.command(name="take-over")
def take_over(
    name: Annotated[str, typer.Argument(help="The region that is lost.")],
    force: Annotated[
        bool, typer.Option(help="Also when the lost region's database answers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the copy that is kept here the database of a region whose site is lost.

    Run it at the site that takes over, with its settings. Then start the region's processes there,
    with MAILYARD_REGION and MAILYARD_DATABASE_URL of the region, and let its names lead to them.

    Example: mailyard region take-over eu
    """
    taken = asyncio.run(_take_over(name, force=force))
    if as_json:
        print(json.dumps(taken))
        return
    print(f"region {name} is here now, in term {taken['term']}")
    print(f"the last commit of the lost site that is here: {taken['last_commit_at'] or 'none'}")
    print(f"start its processes with MAILYARD_REGION={name} MAILYARD_DATABASE_URL=<the copy>")


async def _take_over(name: str, *, force: bool) -> dict[str, object]:
    from mailyard.app import Application
    from mailyard.cli.operator import operator
    from mailyard.core.errors import ConfigurationError
    from mailyard.fleet.take_over import take_over as promote
    from mailyard.settings import load_settings
    from mailyard.storage.database import Database, DatabaseAddress

    application = Application(load_settings())
    regions = application.regions
    region = regions.find(name)
    if name == regions.own or not region.standby:
        raise ConfigurationError(
            f"no copy of region {name} is kept by {regions.own}: {name}.standby in "
            "MAILYARD_REGIONS_FILE names it"
        )
    copy = Database(DatabaseAddress(region.standby, region.standby, 2))
    await application.database.open()
    try:
        await copy.open()
        taken = await promote(
            copy, application.database, region, regions.own, actor=operator, force=force
        )
    finally:
        await copy.close()
        await application.database.close()
    last = taken.last_commit_at
    return {
        "region": taken.region,
        "term": taken.epoch,
        "position": taken.position,
        "last_commit_at": last and last.isoformat(),
        "unreplayed_bytes": taken.unreplayed_bytes,
    }
