"""`mailyard shard`: database clusters, and which workspace is in which."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from mailyard.app.shards import clusters_of, prepare, upkeep_of
from mailyard.cli.client import AsJson, say, say_rows
from mailyard.cli.operator import operator
from mailyard.core import ids
from mailyard.core.errors import ConfigurationError, Unavailable
from mailyard.fleet.shards.move import PATIENCE_S, Mover
from mailyard.fleet.shards.overview import Overview
from mailyard.settings import HOME, load_settings
from mailyard.storage.database import Database
from mailyard.storage.directory import Home

app = typer.Typer(add_completion=False, no_args_is_help=True)

Workspace = Annotated[str, typer.Argument(help="The workspace, as wsp_….")]


@app.command(name="list")
def list_shards(as_json: AsJson = False) -> None:
    """List the clusters, how much is in each, and the newest moves.

    Example: mailyard shard list
    """
    found = _run(_list)
    if as_json:
        say(found, as_json, "")
        return
    say_rows(
        found["shards"],
        as_json,
        [("Shard", "name"), ("Workspaces", "workspaces"), ("Migration", "migration"), ("", "away")],
    )
    if found["moves"]:
        say_rows(
            found["moves"],
            as_json,
            [
                ("Workspace", "workspace"),
                ("From", "source"),
                ("To", "target"),
                ("State", "state"),
                ("Rows", "rows"),
                ("Frozen s", "frozen_s"),
                ("Trouble", "trouble"),
            ],
        )


@app.command(name="workspaces")
def list_workspaces(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 50,
    before: Annotated[str, typer.Option(help="Those older than this workspace.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the workspaces of all clusters, newest first, and where each is.

    A cluster that does not answer within two seconds is named, and the others' are shown.

    Example: mailyard shard workspaces --limit 20
    """
    last = ids.parse_type_id(ids.WORKSPACE, before, field="before") if before else None

    async def work(clusters: Mapping[str, Database]) -> Any:
        return await _workspaces(clusters, last, limit)

    found = _run(work)
    if as_json:
        say(found, as_json, "")
        return
    say_rows(
        found["items"],
        as_json,
        [("Workspace", "id"), ("Shard", "shard"), ("State", "state"), ("Name", "name")],
    )
    for name, why in found["away"].items():
        print(f"{name} is away: {why}")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="A cluster that MAILYARD_SHARDS names.")],
    as_json: AsJson = False,
) -> None:
    """Make a cluster ready: migrations, partitions. Again after each upgrade.

    Example: MAILYARD_SHARDS='east=postgresql://mailyard@east/mailyard' mailyard shard add east
    """

    async def work(clusters: Mapping[str, Database]) -> Any:
        if name not in clusters:
            raise ConfigurationError(
                f"MAILYARD_SHARDS names {', '.join(list(clusters)[1:]) or 'no cluster'}, not {name}"
            )
        return {"shard": name, "applied": await prepare(clusters[name], name)}

    done = _run(work, opened=False)
    say(done, as_json, f"{name} is ready; {len(done['applied'])} migrations were applied")


@app.command()
def move(
    workspace: Workspace,
    to: Annotated[str, typer.Argument(help="The cluster to move it to.")],
    check_bytes: Annotated[
        bool, typer.Option(help="Compare the bytes of mail too, while it is frozen.")
    ] = False,
    patience: Annotated[
        float, typer.Option(help="Seconds to wait for its jobs that are at work.")
    ] = PATIENCE_S,
    give_up: Annotated[bool, typer.Option(help="Undo a move that has not arrived.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move a workspace to another cluster while it works.

    It takes no changes for a few seconds at the end (503 and 451, which clients and peers repeat).
    Called again after whatever has cut it short it goes on.

    Example: mailyard shard move wsp_01jz8x3v9e6r2k4m7n5p0q1s2t east
    """
    workspace_id = ids.parse_type_id(ids.WORKSPACE, workspace, field="workspace")

    async def work(clusters: Mapping[str, Database]) -> Any:
        mover = Mover(
            clusters=clusters,
            home=HOME,
            say=_tell if not as_json else _silent,
            whole=check_bytes,
            patience_s=patience,
            actor=operator,
        )
        if give_up:
            await mover.give_up(workspace_id)
            return {"workspace": workspace, "shard": None}
        moved = await mover.move(workspace_id, to)
        return {
            "workspace": workspace,
            "shard": to,
            "rows": moved.rows,
            "frozen_s": round(moved.frozen_s, 2),
        }

    done = _run(work)
    line = (
        "the workspace stays where it was"
        if give_up
        else f"{done['rows']} rows are in {to}; for {done['frozen_s']} s it took no changes"
    )
    say(done, as_json, line)


@app.command()
def names(as_json: AsJson = False) -> None:
    """Mend the directory of names now, which schedulers do by themselves every ten minutes.

    A name without a row is let go, a row without a name gets one; who is called in two clusters is
    told. After clusters were restored from backups of different times, do this first.

    Example: mailyard shard names
    """

    async def work(clusters: Mapping[str, Database]) -> Any:
        home = Home(clusters[HOME], opened=True)
        passes = {
            name: await upkeep_of(cluster, home, name).whole() for name, cluster in clusters.items()
        }
        return {
            "shards": [
                {"name": name, "claimed": one.claimed, "released": one.released}
                for name, one in passes.items()
            ],
            "twice": [
                {"shard": shard, "kind": found.kind, "name": found.name}
                for shard, one in passes.items()
                for found in one.twice
            ],
        }

    found = _run(work)
    if as_json:
        say(found, as_json, "")
        return
    say_rows(
        found["shards"],
        as_json,
        [("Shard", "name"), ("Claimed", "claimed"), ("Released", "released")],
    )
    for one in found["twice"]:
        print(f"{one['kind']} {one['name']} of {one['shard']} is another cluster's already")


def _run(work: Callable[[Mapping[str, Database]], Awaitable[Any]], *, opened: bool = True) -> Any:
    """Do `work` with the clusters of the settings. Those that are away stay unopened, the home one
    excepted: Unavailable is raised then."""

    async def run() -> Any:
        clusters = clusters_of(load_settings())
        reached = dict(clusters)
        try:
            for name, cluster in clusters.items() if opened else ():
                try:
                    await cluster.open()
                except Unavailable as error:
                    if name == HOME:
                        raise
                    reached[name] = _Away(cluster, error)
            return await work(reached)
        finally:
            for cluster in clusters.values():
                await cluster.close()

    return asyncio.run(run())


class _Away(Database):
    """A cluster that was not reached: says so to whoever asks it."""

    def __init__(self, cluster: Database, error: Unavailable) -> None:
        super().__init__(cluster._address)
        self._error = error

    @property
    def pool(self) -> Any:
        raise self._error


async def _list(clusters: Mapping[str, Database]) -> dict[str, Any]:
    overview = Overview(clusters, HOME)
    return {
        "shards": [
            {"name": one.name, "workspaces": one.workspaces, "migration": one.migration}
            | ({"away": one.away} if one.away else {})
            for one in await overview.clusters()
        ],
        "moves": [
            {
                "workspace": ids.type_id(ids.WORKSPACE, one.workspace_id),
                "source": one.source,
                "target": one.target,
                "state": one.state,
                "rows": one.rows,
                "frozen_s": one.frozen_s,
                "trouble": one.trouble,
            }
            for one in await overview.moves()
        ],
    }


async def _workspaces(
    clusters: Mapping[str, Database], before: UUID | None, limit: int
) -> dict[str, Any]:
    page = await Overview(clusters, HOME).workspaces(before=before, limit=limit)
    return {
        "items": [
            {
                "id": ids.type_id(ids.WORKSPACE, one.id),
                "name": one.name,
                "shard": one.shard,
                "state": "moving" if one.moving else "active",
                "created_at": one.created_at,
            }
            for one in page.items
        ],
        "away": dict(page.away),
        "more": page.next_before is not None,
    }


def _tell(line: str) -> None:
    print(line, flush=True)


def _silent(line: str) -> None:
    """With --json one object is all that is said."""
