"""The states of a campaign as a table: (state, event) -> state.

draft --start--> running --finish--> finished
 |    ^          ^ |    ^
 |    pause  start pause resume      draft, scheduled, running, paused --cancel--> cancelled
 schedule |    |   v    |
 `-->  scheduled   paused
"""

from enum import StrEnum

from mailyard.core.errors import Conflict


class State(StrEnum):
    DRAFT = "draft"
    SCHEDULED = "scheduled"  # it starts by itself
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"
    FINISHED = "finished"


class Event(StrEnum):
    SCHEDULE = "schedule"
    START = "start"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FINISH = "finish"  # every chunk is finished, and nobody waits for another attempt


TABLE: dict[State, dict[Event, State]] = {
    State.DRAFT: {
        Event.SCHEDULE: State.SCHEDULED,
        Event.START: State.RUNNING,
        Event.CANCEL: State.CANCELLED,
    },
    State.SCHEDULED: {
        Event.START: State.RUNNING,
        Event.PAUSE: State.DRAFT,
        Event.CANCEL: State.CANCELLED,
    },
    State.RUNNING: {
        Event.PAUSE: State.PAUSED,
        Event.CANCEL: State.CANCELLED,
        Event.FINISH: State.FINISHED,
    },
    State.PAUSED: {Event.RESUME: State.RUNNING, Event.CANCEL: State.CANCELLED},
    State.CANCELLED: {},
    State.FINISHED: {},
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises Conflict when the campaign's state forbids `event`."""
    following = TABLE[state].get(event)
    if following is None:
        raise Conflict(f"a campaign that is {state} cannot {event}", field="state")
    return following
