"""Rows of other systems' tables as deliveries."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.core.ids import time_of
from mailyard.sending.delivery import recipient_key
from mailyard.sending.history.columns import read_columns, read_states
from mailyard.sending.history.rows import DELIVERY_COLUMNS, Past, Refused, reader
from mailyard.sending.states import State

WORKSPACE = UUID(int=7)
NOW = datetime(2026, 6, 1, tzinfo=UTC)
NAMES = ["id", "user_id", "type", "recipient", "status", "created_at", "sent_at", "bounced_at"]
ROW = ["1001", "42", "receipt", "Ada@Example.org", "sent", "2026-03-01 12:30:00.5+00",
       "2026-03-01T12:30:02Z", ""]  # fmt: skip


def turn(row: list[Any], names: list[str] = NAMES, **changed: Any) -> Past:
    settings: dict[str, Any] = {
        "workspace_id": WORKSPACE,
        "source": "old",
        "zone": UTC,
        "default_type": "imported",
        "oldest": None,
        "now": NOW,
    }
    states = read_states(changed.pop("words", {}))
    return reader(read_columns(names, {}), states, **settings | changed)(row)


def delivery_of(row: list[Any], **changed: Any) -> dict[str, Any]:
    return dict(zip(DELIVERY_COLUMNS, turn(row, **changed).delivery, strict=True))


def test_a_row_becomes_a_delivery_of_its_own_time() -> None:
    found = delivery_of(ROW)
    born = datetime(2026, 3, 1, 12, 30, 0, 500_000, UTC)
    assert time_of(found["id"]) == born == found["queued_at"]
    assert found["handed_off_at"] == found["updated_at"] == datetime(2026, 3, 1, 12, 30, 2, 0, UTC)
    assert (found["recipient"], found["type"]) == ("ada@example.org", "receipt")
    assert found["recipient_key"] == recipient_key("ada@example.org")
    assert (found["state"], found["reply"]) == ("accepted", "id 1001 of user 42")


def test_the_same_row_is_the_same_delivery_and_another_is_not() -> None:
    same = turn(ROW).delivery[0]
    assert turn([*ROW[:2], "other type", *ROW[3:]]).delivery[0] == same, "its id says who it is"
    others = {
        turn(["1002", *ROW[1:]]).delivery[0],
        turn(ROW, source="another").delivery[0],
        turn(ROW, workspace_id=UUID(int=8)).delivery[0],
        turn(["", *ROW[1:]]).delivery[0],
        turn(["", *ROW[1:3], "bob@example.org", *ROW[4:]]).delivery[0],
    }
    assert len(others | {same}) == 6


def test_what_happened_before_is_told_as_events() -> None:
    names = [*NAMES[:6], "delivered_at", "opened_at", "clicked_at"]
    times = ["2026-03-01 12:00", "2026-03-01 12:01", "2026-03-01 13:00", ""]
    past = turn([*ROW[:4], "opened", *times], names)
    [opened] = past.events
    assert past.delivery[DELIVERY_COLUMNS.index("state")] == "delivered"
    assert past.delivery[DELIVERY_COLUMNS.index("updated_at")].minute == 1
    assert opened[1:6] == (1, WORKSPACE, datetime(2026, 3, 1, 13, 0, tzinfo=UTC), "delivered",
                           "opened")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-01 12:30:00", datetime(2026, 3, 1, 11, 30, tzinfo=UTC)),
        ("2026-03-01 12:30:00 UTC", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("2026-03-01 12:30:00.123456 +0100", datetime(2026, 3, 1, 11, 30, 0, 123456, UTC)),
        ("1772368200", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        ("1772368200000", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
        (datetime(2026, 3, 1, 12, 30), datetime(2026, 3, 1, 11, 30, tzinfo=UTC)),
        (1772368200, datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_databases_write_them(text: Any, moment: datetime) -> None:
    row = [*ROW[:5], text, None, "\\N"]
    assert delivery_of(row, zone=ZoneInfo("Europe/Berlin"))["queued_at"] == moment


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        (3, "nobody", "recipient 'nobody'"),
        (3, "a@b\r\nBcc: x@y", "recipient"),
        (3, None, "recipient"),
        (4, "teleported", "teleported"),
        (5, "yesterday", "created_at 'yesterday'"),
        (5, "2031-01-01", "future"),
        (5, "0001-01-01", "before 1990"),
        (5, "2020-01-01", "older"),
    ],
)
def test_what_is_no_delivery_is_refused_with_a_reason(place: int, value: Any, why: str) -> None:
    row: list[Any] = [*ROW]
    row[place] = value
    with pytest.raises(Refused, match=why):
        turn(row, oldest=NOW - timedelta(days=1_000))


def test_a_row_of_another_width_or_without_a_time_is_refused() -> None:
    with pytest.raises(Refused, match="7 columns and not 8"):
        turn(ROW[:-1])
    with pytest.raises(Refused, match="no time"):
        turn([*ROW[:5], "", "NULL", "0000-00-00 00:00:00"])


def test_controls_and_lengths_are_taken_out_of_texts() -> None:
    found = delivery_of(["1\r\n2", "x" * 900, "a\x00b" + "c" * 900, *ROW[3:]])
    assert found["reply"].startswith("id 1 2 of user x")
    assert (len(found["reply"]), len(found["type"])) == (500, 100)
    assert found["type"].startswith("a b")


def test_columns_are_known_by_their_names_or_said() -> None:
    columns = read_columns(["To Address", "Status", "Sent At", "email"], {"email": None})
    assert columns.places == {"recipient": 0, "state": 1, "sent_at": 2}
    said = read_columns(
        ["who", "how", "when"], {"who": "recipient", "how": "state", "when": "sent_at"}
    )
    assert said.places == {"recipient": 0, "state": 1, "sent_at": 2}
    for names, meant, why in (
        (["email", "created_at"], {}, "no column means state"),
        (["email", "status"], {}, "no column is a time"),
        (["email", "status", "date"], {"nix": "id"}, "no column 'nix'"),
        (["email", "status", "date"], {"date": "nix"}, "'nix' is none of"),
        (["a", "b", "status", "date"], {"a": "recipient", "b": "recipient"}, "two columns"),
    ):
        with pytest.raises(InvalidInput, match=why):
            read_columns(names, meant)


def test_nothing_of_the_past_waits_to_be_sent() -> None:
    assert not set(read_states({}).values()) & {
        State.QUEUED, State.LEASED, State.HANDED_OFF, State.DEFERRED
    }  # fmt: skip
    assert delivery_of([*ROW[:4], "in flight", *ROW[5:]], words={"In Flight": "unknown"})[
        "state"
    ] == ("unknown")
    with pytest.raises(InvalidInput, match="queued"):
        read_states({"waiting": "queued"})
