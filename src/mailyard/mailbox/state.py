"""How a line stands in its mailbox, and what people do to it: pure.

An act turns a state into another. An event keeps what changed of each line, before and after, so
that it can be undone wherever nobody has changed the same since.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from mailyard.core import limits
from mailyard.core.errors import InvalidInput

INBOX = "inbox"
ARCHIVE = "archive"
SENT = "sent"
SPAM = "spam"
TRASH = "trash"
SNOOZED = "snoozed"
FOLDERS = (INBOX, SNOOZED, ARCHIVE, SENT, SPAM, TRASH)  # that every mailbox has

FOLDER_CHARACTERS = 100
LABELS_PER_LINE = 50
NAMES_PER_MAILBOX = 500  # of folders, and of labels

Verb = Literal[
    "read", "unread", "star", "unstar", "archive", "move", "trash", "restore", "label", "unlabel",
    "mute", "unmute", "snooze", "wake",
]  # fmt: skip


class State(msgspec.Struct, frozen=True, gc=False):
    """How a line stands. `back_to`: the folder it returns to from `snoozed` or `trash`."""

    folder: str = INBOX
    back_to: str = ""
    labels: tuple[str, ...] = ()
    seen: bool = False
    starred: bool = False
    muted: bool = False
    snoozed_until: datetime | None = None


class Act(msgspec.Struct, frozen=True, gc=False):
    """What is done to lines. `folder`: of a move; `labels`: of labelling; `until`: of a snooze."""

    verb: Verb
    folder: str = ""
    labels: tuple[str, ...] = ()
    until: datetime | None = None


def check(act: Act, now: datetime) -> Act:
    """The act, its names in order. Raises InvalidInput naming what is wrong."""
    if act.verb == "move":
        check_name(act.folder, "folder")
        if act.folder == SNOOZED:
            raise InvalidInput("snooze it until a time, then it is here", field="folder")
    elif act.folder:
        raise InvalidInput("only a move names a folder", field="folder")
    if act.verb in ("label", "unlabel"):
        if not 1 <= len(act.labels) <= LABELS_PER_LINE:
            raise InvalidInput(f"1 to {LABELS_PER_LINE} labels", field="labels")
        for place, label in enumerate(act.labels):
            check_name(label, f"labels.{place}")
    elif act.labels:
        raise InvalidInput("only label and unlabel name labels", field="labels")
    if act.verb == "snooze":
        if act.until is None or act.until <= now:
            raise InvalidInput("a time to come is needed", field="until")
        if (act.until - now).total_seconds() > limits.INBOX_TTL_S:
            raise InvalidInput("that is too far ahead", field="until")
    elif act.until is not None:
        raise InvalidInput("only a snooze has an end", field="until")
    return act


def check_name(name: str, field: str) -> None:
    """A folder's or a label's name. Raises InvalidInput naming `field`."""
    if not 1 <= len(name) <= FOLDER_CHARACTERS:
        raise InvalidInput(f"a name has 1 to {FOLDER_CHARACTERS} characters", field=field)
    if not name.isprintable() or name != name.strip():
        raise InvalidInput("no control characters, and no space at its ends", field=field)
    if name.lower() in FOLDERS and name not in FOLDERS:
        raise InvalidInput(f"too like {name.lower()}, which every mailbox has", field=field)


def after(state: State, act: Act) -> State:
    """The state that `act` makes of `state`. Raises InvalidInput for too many labels."""
    change = msgspec.structs.replace
    match act.verb:
        case "read" | "unread":
            return change(state, seen=act.verb == "read")
        case "star" | "unstar":
            return change(state, starred=act.verb == "star")
        case "archive":
            return _moved(state, ARCHIVE)
        case "move":
            return _moved(state, act.folder)
        case "trash":
            return _moved(state, TRASH, back_to=_home(state))
        case "restore":
            return _moved(state, state.back_to or INBOX) if state.folder == TRASH else state
        case "label":
            labels = tuple(sorted({*state.labels, *act.labels}))
            if len(labels) > LABELS_PER_LINE:
                raise InvalidInput(f"at most {LABELS_PER_LINE} labels a mail", field="labels")
            return change(state, labels=labels)
        case "unlabel":
            left = tuple(label for label in state.labels if label not in act.labels)
            return change(state, labels=left)
        case "mute":
            quiet = _moved(state, ARCHIVE) if state.folder == INBOX else state
            return change(quiet, muted=True)
        case "unmute":
            return change(state, muted=False)
        case "snooze":
            asleep = _moved(state, SNOOZED, back_to=_home(state))
            return change(asleep, snoozed_until=act.until)
        case "wake":
            if state.folder != SNOOZED:
                return state
            return change(_moved(state, state.back_to or INBOX), seen=False)


def _moved(state: State, folder: str, back_to: str = "") -> State:
    if folder == state.folder and folder != SNOOZED:
        return state
    return msgspec.structs.replace(state, folder=folder, back_to=back_to, snoozed_until=None)


def _home(state: State) -> str:
    """Where a line goes back to: not to where it only waits."""
    return state.back_to if state.folder in (SNOOZED, TRASH) else state.folder


def difference(before: State, now: State) -> tuple[dict[str, Any], dict[str, Any]]:
    """What differs, as it was and as it is."""
    was, is_now = msgspec.to_builtins(before), msgspec.to_builtins(now)
    names = [name for name in was if was[name] != is_now[name]]
    return {name: was[name] for name in names}, {name: is_now[name] for name in names}


def undone(state: State, before: Mapping[str, Any], now: Mapping[str, Any]) -> State:
    """`state` as it was before a change, in whatever nobody has changed since."""
    # As an event keeps it: a tuple of labels would never be equal to the list that JSON gives back.
    said = msgspec.json.decode(msgspec.json.encode(state))
    back = {
        name: value for name, value in before.items() if name in said and said[name] == now[name]
    }
    return msgspec.convert(said | back, State)
