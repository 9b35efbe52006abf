"""`mailyard migrate`: bring a shared database to this version."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from mailyard.app import database_address
from mailyard.settings import HOME, Settings, load_settings
from mailyard.storage.database import Database
from mailyard.storage.migrate import migrate as apply_migrations
from mailyard.storage.migrate import pending
from mailyard.storage.partitions import ensure_partitions

app = typer.Typer(add_completion=False)


@app.command()
def migrate(
    check: Annotated[bool, typer.Option(help="Only say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Apply the migrations that the database lacks, and make the partitions it needs now.

    `mailyard up` does the same by itself. Several at once are fine: one works, the others wait.

    Example: MAILYARD_DATABASE_URL=postgresql://mailyard@db/mailyard mailyard migrate
    """
    names = asyncio.run(_migrate(check))
    if as_json:
        print(json.dumps({"pending" if check else "applied": names}))
    elif names:
        print(("would apply " if check else "applied ") + ", ".join(names))
    else:
        print("nothing to do")
    if check and names:
        raise typer.Exit(1)


async def _migrate(check: bool) -> list[str]:
    settings = load_settings()
    names = await _migrate_home(settings, check)
    if settings.shards:
        from mailyard.app.shards import clusters_of, prepare

        for shard, cluster in clusters_of(settings).items():
            if shard != HOME:
                of_shard = (
                    await pending(cluster.direct_url) if check else await prepare(cluster, shard)
                )
                names += [f"{shard}: {name}" for name in of_shard]
    return names


async def _migrate_home(settings: Settings, check: bool) -> list[str]:
    address = database_address(settings)
    if check:
        return await pending(address.direct_url)
    names = await apply_migrations(address.direct_url)
    database = Database(address)
    await database.open()
    try:
        await ensure_partitions(database, datetime.now(UTC))
    finally:
        await database.close()
    return names
