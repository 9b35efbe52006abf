"""What `mailyard doctor` finds about moves between database clusters."""

from mailyard.core.errors import MailyardError
from mailyard.core.ids import WORKSPACE, type_id
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.fleet.shards.overview import MoveSeen, Overview

CHECK = "moves"


async def check_moves(overview: Overview) -> Finding:
    """Whether a move waits for somebody to go on with it."""
    try:
        moves = await overview.moves()
    except MailyardError as error:
        return Finding(CHECK, Grade.BAD, error.message, "start the home cluster")
    open_moves = [one for one in moves if one.state not in ("done", "given up")]
    frozen = [one for one in open_moves if one.state == "frozen"]
    if frozen:
        found = f"{_name(frozen[0])} takes no changes while its move is frozen"
        return Finding(CHECK, Grade.WARN, found, _again(frozen[0]))
    if open_moves:
        found = f"the move of {_name(open_moves[0])} is {open_moves[0].state}"
        return Finding(CHECK, Grade.WARN, found, _again(open_moves[0]))
    return Finding(CHECK, Grade.GOOD, "no workspace is on its way")


def _name(move: MoveSeen) -> str:
    return type_id(WORKSPACE, move.workspace_id)


def _again(move: MoveSeen) -> str:
    return f"if nobody is at it: mailyard shard move {_name(move)} {move.target}"
