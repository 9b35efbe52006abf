"""The automaton of a campaign, cell by cell."""

import pytest

from mailyard.campaigns.states import Event, State, after
from mailyard.core.errors import Conflict

ALLOWED = {
    ("draft", "start"): "running",
    ("draft", "cancel"): "cancelled",
    ("draft", "schedule"): "scheduled",
    ("scheduled", "start"): "running",
    ("scheduled", "pause"): "draft",
    ("scheduled", "cancel"): "cancelled",
    ("running", "pause"): "paused",
    ("running", "cancel"): "cancelled",
    ("running", "finish"): "finished",
    ("paused", "resume"): "running",
    ("paused", "cancel"): "cancelled",
}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_cell(state: State, event: Event) -> None:
    following = ALLOWED.get((state.value, event.value))
    if following is None:
        with pytest.raises(Conflict):
            after(state, event)
    else:
        assert after(state, event) == State(following)
