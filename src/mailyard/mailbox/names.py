"""The folders and labels that a mailbox offers: those that were set, and those that were used."""

from collections.abc import Sequence

from mailyard.core.errors import Conflict, InvalidInput
from mailyard.mailbox import state as states
from mailyard.mailbox.mailbox_value import Held
from mailyard.mailbox.state import Act
from mailyard.storage.database import Database
from mailyard.storage.queries import load

QUERIES = load("mailbox")


async def set_names(
    database: Database, held: Held, folders: Sequence[str] | None, labels: Sequence[str] | None
) -> dict[str, list[str]]:
    """Set what is given; what is offered now. Raises InvalidInput, and Conflict for a folder that
    has mail and would go."""
    before = await _offered(database, held)
    now = {name: list(names) for name, names in before.items()}
    for field, names in (("folders", folders), ("labels", labels)):
        if names is None:
            continue
        if len(names) > states.NAMES_PER_MAILBOX:
            raise InvalidInput(f"at most {states.NAMES_PER_MAILBOX}", field=field)
        for number, name in enumerate(names):
            states.check_name(name, f"{field}.{number}")
        now[field] = [
            name for name in dict.fromkeys(names) if field == "labels" or name not in states.FOLDERS
        ]
    for gone in set(before["folders"]) - set(now["folders"]):
        if await database.fetchval(QUERIES.any_in_folder, *held.key, gone, tx=held.tx):
            raise Conflict(f"there is mail in {gone}: move it first", field="folders")
    await database.execute(QUERIES.set_names, *held.key, now["folders"], now["labels"], tx=held.tx)
    return now


async def learn(database: Database, held: Held, act: Act) -> None:
    """A folder or label that is used is offered from then on."""
    if act.verb not in ("move", "label"):
        return
    before = await _offered(database, held)
    folders = list(before["folders"])
    if act.verb == "move" and act.folder not in (*states.FOLDERS, *folders):
        folders.append(act.folder)
    labels = list(dict.fromkeys((*before["labels"], *act.labels)))
    for field, names in (("folder", folders), ("labels", labels)):
        if len(names) > states.NAMES_PER_MAILBOX:
            raise InvalidInput(
                f"a mailbox has at most {states.NAMES_PER_MAILBOX} of them", field=field
            )
    if (folders, labels) != (before["folders"], before["labels"]):
        await database.execute(QUERIES.set_names, *held.key, folders, labels, tx=held.tx)


async def _offered(database: Database, held: Held) -> dict[str, list[str]]:
    row = await database.fetchrow(QUERIES.overview, *held.key, tx=held.tx)
    assert row is not None, "the caller holds it"
    return {"folders": list(row["folders"]), "labels": list(row["labels"])}
