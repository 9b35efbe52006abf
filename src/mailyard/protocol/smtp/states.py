"""The server's automaton as a table (RFC 5321 section 4.1.4, RFC 3030, RFC 3207, RFC 4954).

Everything that decides "is this command allowed now, and what then" is here. A missing cell is a
command out of sequence: it is answered with 503 and changes nothing. NOOP, VRFY and HELP are
allowed in every state that reads commands and change none, so they have no cells.
"""

from enum import IntEnum, auto


class State(IntEnum):
    """Where a session stands. The last six read no commands."""

    CONNECTED = auto()  # greeted, or TLS has just started: EHLO or HELO is due
    READY = auto()
    SENDER = auto()  # MAIL was accepted
    ADDRESSED = auto()  # at least one RCPT was accepted
    BETWEEN_CHUNKS = auto()  # after BDAT without LAST
    IN_DATA = auto()
    IN_CHUNK = auto()
    HANDSHAKE = auto()  # STARTTLS was answered with 220
    IN_AUTH = auto()  # a line of the AUTH exchange is due
    AUTH_ASKED = auto()  # the credentials are here; whether they are good is being asked
    CLOSED = auto()


class Step(IntEnum):
    """What can happen: a command that was understood, or the end of what it began."""

    HELLO = auto()
    MAIL = auto()
    RECIPIENT = auto()  # RCPT was asked
    RECIPIENT_TAKEN = auto()  # RCPT was answered with 250
    DATA = auto()
    DATA_END = auto()
    CHUNK = auto()
    CHUNK_AHEAD = auto()  # the last chunk, before its recipients have been answered
    CHUNK_FOR_NOBODY = auto()  # all recipients were refused: the transaction has failed
    CHUNK_END = auto()
    LAST_CHUNK_END = auto()
    RESET = auto()
    STARTTLS = auto()
    TLS_STARTED = auto()
    AUTH = auto()
    AUTH_LINE = auto()  # another line of the exchange is due
    AUTH_WHOLE = auto()
    AUTH_END = auto()  # answered, cancelled, or broken
    CLOSE = auto()


TRANSITIONS: dict[State, dict[Step, State]] = {
    State.CONNECTED: {
        Step.HELLO: State.READY,
        Step.RESET: State.CONNECTED,
        Step.STARTTLS: State.HANDSHAKE,
        Step.CLOSE: State.CLOSED,
    },
    State.READY: {
        Step.HELLO: State.READY,
        Step.MAIL: State.SENDER,
        Step.RESET: State.READY,
        Step.STARTTLS: State.HANDSHAKE,
        Step.AUTH: State.IN_AUTH,
        Step.CLOSE: State.CLOSED,
    },
    State.SENDER: {
        Step.HELLO: State.READY,
        Step.RECIPIENT: State.SENDER,
        Step.RECIPIENT_TAKEN: State.ADDRESSED,
        Step.CHUNK_AHEAD: State.IN_CHUNK,
        Step.CHUNK_FOR_NOBODY: State.READY,
        Step.RESET: State.READY,
        Step.CLOSE: State.CLOSED,
    },
    State.ADDRESSED: {
        Step.HELLO: State.READY,
        Step.RECIPIENT: State.ADDRESSED,
        Step.RECIPIENT_TAKEN: State.ADDRESSED,
        Step.DATA: State.IN_DATA,
        Step.CHUNK: State.IN_CHUNK,
        Step.CHUNK_AHEAD: State.IN_CHUNK,
        Step.RESET: State.READY,
        Step.CLOSE: State.CLOSED,
    },
    State.BETWEEN_CHUNKS: {
        Step.HELLO: State.READY,
        Step.CHUNK: State.IN_CHUNK,
        Step.RESET: State.READY,
        Step.CLOSE: State.CLOSED,
    },
    State.IN_DATA: {
        Step.DATA_END: State.READY,
        Step.CLOSE: State.CLOSED,
    },
    State.IN_CHUNK: {
        Step.CHUNK_END: State.BETWEEN_CHUNKS,
        Step.LAST_CHUNK_END: State.READY,
        Step.RECIPIENT_TAKEN: State.IN_CHUNK,
        Step.RESET: State.READY,  # the chunk made the message too large
        Step.CLOSE: State.CLOSED,
    },
    State.HANDSHAKE: {
        Step.TLS_STARTED: State.CONNECTED,
        Step.CLOSE: State.CLOSED,
    },
    State.IN_AUTH: {
        Step.AUTH_LINE: State.IN_AUTH,
        Step.AUTH_WHOLE: State.AUTH_ASKED,
        Step.AUTH_END: State.READY,
        Step.CLOSE: State.CLOSED,
    },
    State.AUTH_ASKED: {
        Step.AUTH_END: State.READY,
        Step.CLOSE: State.CLOSED,
    },
    State.CLOSED: {},
}
