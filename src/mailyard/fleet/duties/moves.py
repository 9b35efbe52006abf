"""A move of a workspace whose mover is dead is gone on with, so that it is not frozen for long."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

import structlog

from mailyard.core.errors import Conflict, MailyardError
from mailyard.fleet.duty import Duty
from mailyard.fleet.shards.move import Mover
from mailyard.fleet.shards.tables import QUERIES
from mailyard.storage.database import Database

EVERY_S = 15.0
# So long a move may be frozen, or be letting go, before somebody looks whether its mover lives: who
# moves holds a lock, so a slow one is let be. An operator who calls it again is faster.
LEFT_S = 60.0

_LOG = structlog.get_logger(__name__)

Clusters = Callable[[], AbstractAsyncContextManager[Mapping[str, Database]]]


def go_on(home: Database, clusters: Clusters, *, name_of_home: str, left_s: float = LEFT_S) -> Duty:
    """Of the home cluster's scheduler. `clusters` opens them all; raises Unavailable.

    What cannot go on is put back to `copying` by its mover, and is the operator's again.
    """

    async def do() -> bool:
        rows = await home.fetch(QUERIES.left_moves, left_s)
        if not rows:
            return False
        async with clusters() as opened:
            mover = Mover(clusters=opened, home=name_of_home)
            for row in rows:
                try:
                    await mover.move(row["workspace_id"], row["target"])
                except Conflict as error:  # somebody else is at it
                    _LOG.info("move_left_alone", workspace=str(row["workspace_id"]), why=str(error))
                except MailyardError as error:  # the next one may go on all the same
                    _LOG.warning("move_stays", workspace=str(row["workspace_id"]), why=str(error))
                else:
                    _LOG.warning("move_gone_on_with", workspace=str(row["workspace_id"]))
        return False

    return Duty("go-on-with-moves", EVERY_S, do)
