"""Routes as a person writes them."""

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.core.ids import WORKSPACE, type_id, uuid7
from mailyard.sending.routing import Conditions, StoredLeg, StoredRoute
from mailyard.web.ui.route_lines import as_lines, from_lines


def test_what_is_written_is_read_back() -> None:
    routes = [
        StoredRoute(
            "codes",
            [StoredLeg("ses", 3), StoredLeg("relay", 1, 1)],
            Conditions(tags=["code", "otp"], domains=["example.com"], workspaces=[uuid7()]),
        ),
        StoredRoute("all", [StoredLeg("ses")]),
    ]
    assert from_lines(as_lines(routes)) == routes
    workspace = type_id(WORKSPACE, routes[0].when.workspaces[0])
    assert as_lines(routes).splitlines() == [
        f"codes | tags=code,otp domains=example.com workspaces={workspace} | ses:3 relay:1:1",
        "all | always | ses",
    ]
    assert from_lines("\n \n") == []


@pytest.mark.parametrize(
    "line", ["all always ses", "all | sometimes | ses", "all | always | ses:x", "a | b=c | ses"]
)
def test_a_line_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(InvalidInput, match="line 2"):
        from_lines(f"all | always | ses\n{line}")
