"""The automaton of a delivery, cell by cell."""

import pytest

from mailyard.core.errors import Conflict
from mailyard.sending.states import TABLE, Event, State, after, sources

# state: events that may come, in the order of Event, and where each leads.
PICTURE = {
    "queued": "lease>leased hand_off>handed_off give_up>failed expire>expired"
    " suppress>suppressed cancel>cancelled",
    "leased": "release>queued hand_off>handed_off give_up>failed expire>expired"
    " suppress>suppressed cancel>cancelled",
    "handed_off": "accept>accepted later>deferred refuse>bounced lose>unknown give_up>failed"
    " expire>expired",
    "accepted": "deliver>delivered bounce>bounced",
    "deferred": "lease>leased hand_off>handed_off give_up>failed expire>expired"
    " suppress>suppressed cancel>cancelled",
    "delivered": "bounce>bounced",
    "bounced": "",
    "failed": "hand_off>handed_off",
    "suppressed": "",
    "expired": "",
    "unknown": "hand_off>handed_off deliver>delivered bounce>bounced",
    "cancelled": "",
}


def test_the_picture_names_every_state() -> None:
    assert set(PICTURE) == {state.value for state in State} == {s.value for s in TABLE}


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_every_cell(state: State, event: Event) -> None:
    allowed = dict(pair.split(">") for pair in PICTURE[state].split())
    if event in allowed:
        assert after(state, event) == State(allowed[event])
    else:
        with pytest.raises(Conflict):
            after(state, event)


def test_leased_is_never_the_source_of_a_written_change() -> None:
    for event in Event:
        assert State.LEASED not in sources(event)
    assert sources(Event.CANCEL) == {State.QUEUED, State.DEFERRED}
    assert sources(Event.ACCEPT) == {State.HANDED_OFF}
