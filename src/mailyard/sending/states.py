"""The states of a delivery as a table: (state, event) -> state. Nothing else decides a state.

    queued --hand_off--> handed_off --accept--> accepted --deliver--> delivered
       ^                  |  |  |  `--refuse--> bounced
       |                  |  |  `--later--> deferred --hand_off--> handed_off …
    (a row is born        |  `--lose--> unknown --hand_off--> (transactional mail only)
     queued, suppressed   `--give_up--> failed --hand_off--> (its dead letter was redriven)
     or, in a campaign,
     with its result)

`leased` is what a person is shown while a worker holds the job; no row ever says it (DESIGN
section 4: an indexed state makes every update a dear one). A pair that is not in the table cannot
happen: `after` raises Conflict for it, and the SQL that moves rows names exactly the states from
which its event may come (`sources`).
"""

from enum import StrEnum

from mailyard.core.errors import Conflict


class State(StrEnum):
    """Where a delivery stands."""

    QUEUED = "queued"
    LEASED = "leased"
    HANDED_OFF = "handed_off"
    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    BOUNCED = "bounced"
    FAILED = "failed"
    SUPPRESSED = "suppressed"
    EXPIRED = "expired"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What can happen to a delivery."""

    LEASE = "lease"  # a worker took its job
    RELEASE = "release"  # and gave it back untouched
    HAND_OFF = "hand_off"  # a fenced commit named it: from now on bytes may leave
    ACCEPT = "accept"  # the next hop took responsibility (2xx)
    LATER = "later"  # the next hop said 4xx, or could not be reached
    REFUSE = "refuse"  # the next hop said 5xx
    LOSE = "lose"  # named, and nobody knows whether the bytes arrived
    DELIVER = "deliver"  # the destination confirmed it
    BOUNCE = "bounce"  # the destination sent it back later
    GIVE_UP = "give_up"  # attempts used up, or it cannot be composed
    EXPIRE = "expire"  # its time ran out
    SUPPRESS = "suppress"  # the recipient is on the suppression list
    CANCEL = "cancel"  # the caller withdrew it


_WAITING = {
    Event.HAND_OFF: State.HANDED_OFF,
    Event.GIVE_UP: State.FAILED,
    Event.EXPIRE: State.EXPIRED,
    Event.SUPPRESS: State.SUPPRESSED,
    Event.CANCEL: State.CANCELLED,
}

TABLE: dict[State, dict[Event, State]] = {
    State.QUEUED: {**_WAITING, Event.LEASE: State.LEASED},
    State.LEASED: {**_WAITING, Event.RELEASE: State.QUEUED},
    State.DEFERRED: {**_WAITING, Event.LEASE: State.LEASED},
    State.HANDED_OFF: {
        Event.ACCEPT: State.ACCEPTED,
        Event.LATER: State.DEFERRED,
        Event.REFUSE: State.BOUNCED,
        Event.LOSE: State.UNKNOWN,
        Event.GIVE_UP: State.FAILED,
        Event.EXPIRE: State.EXPIRED,
    },
    State.UNKNOWN: {
        Event.HAND_OFF: State.HANDED_OFF,
        Event.DELIVER: State.DELIVERED,
        Event.BOUNCE: State.BOUNCED,
    },
    State.ACCEPTED: {Event.DELIVER: State.DELIVERED, Event.BOUNCE: State.BOUNCED},
    State.DELIVERED: {Event.BOUNCE: State.BOUNCED},
    State.FAILED: {Event.HAND_OFF: State.HANDED_OFF},
    State.BOUNCED: {},
    State.SUPPRESSED: {},
    State.EXPIRED: {},
    State.CANCELLED: {},
}


def after(state: State, event: Event) -> State:
    """The state that follows. Raises Conflict when `event` cannot happen in `state`."""
    following = TABLE[state].get(event)
    if following is None:
        raise Conflict(f"a delivery that is {state} cannot {event.replace('_', ' ')}")
    return following


def sources(event: Event) -> frozenset[State]:
    """The written states from which `event` may come."""
    return frozenset(
        state for state, row in TABLE.items() if event in row and state is not State.LEASED
    )
