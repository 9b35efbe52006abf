"""Every cell of the server's automaton: each command in each state, through the wire."""

import pytest
from smtp_sessions import Driver, codes_of

from mailyard.protocol.smtp.reply import Reply
from mailyard.protocol.smtp.states import TRANSITIONS, State, Step

_HELLO = b"EHLO client.example\r\n"
_MAIL = b"MAIL FROM:<a@b.example>\r\n"
_RCPT = b"RCPT TO:<c@d.example>\r\n"

REACH: dict[State, list[bytes]] = {
    State.CONNECTED: [],
    State.READY: [_HELLO],
    State.SENDER: [_HELLO, _MAIL],
    State.ADDRESSED: [_HELLO, _MAIL, _RCPT],
    State.BETWEEN_CHUNKS: [_HELLO, _MAIL, _RCPT, b"BDAT 3\r\nabc"],
    State.IN_DATA: [_HELLO, _MAIL, _RCPT, b"DATA\r\n"],
    State.IN_CHUNK: [_HELLO, _MAIL, _RCPT, b"BDAT 400\r\nabc"],
    State.CLOSED: [b"QUIT\r\n"],
}

# What each command does where it is allowed: (its step, the code, the state after it).
COMMANDS: dict[bytes, tuple[Step, int, State]] = {
    b"EHLO other.example\r\n": (Step.HELLO, 250, State.READY),
    b"HELO other.example\r\n": (Step.HELLO, 250, State.READY),
    b"MAIL FROM:<x@y.example>\r\n": (Step.MAIL, 250, State.SENDER),
    b"RCPT TO:<z@y.example>\r\n": (Step.RECIPIENT, 250, State.ADDRESSED),
    b"DATA\r\n": (Step.DATA, 354, State.IN_DATA),
    b"BDAT 0\r\n": (Step.CHUNK, 250, State.BETWEEN_CHUNKS),
    b"BDAT 0 LAST\r\n": (Step.CHUNK, 250, State.READY),
    b"QUIT\r\n": (Step.CLOSE, 221, State.CLOSED),
}
READS = [s for s in REACH if s not in (State.IN_DATA, State.IN_CHUNK, State.CLOSED)]


def reach(state: State) -> Driver:
    driver = Driver()
    driver.feed(*REACH[state])
    assert driver.session.state is state
    return driver


@pytest.mark.parametrize("state", READS, ids=lambda s: s.name)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.split()[0].decode())
def test_a_command_is_taken_where_the_table_has_a_cell_and_503_elsewhere(
    state: State, command: bytes
) -> None:
    driver = reach(state)
    step, code, after = COMMANDS[command]
    if step is Step.CHUNK and state is State.SENDER:
        step, code, after = Step.CHUNK_FOR_NOBODY, 503, State.READY
    if step in TRANSITIONS[state]:
        assert driver.codes(command) == [code]
        assert driver.session.state is after
    else:
        assert driver.codes(command) == [503]
        assert driver.session.state is state


@pytest.mark.parametrize("state", READS, ids=lambda s: s.name)
@pytest.mark.parametrize(
    ("command", "code"), [(b"NOOP\r\n", 250), (b"VRFY x\r\n", 252), (b"HELP\r\n", 214)]
)
def test_commands_without_effect_are_taken_everywhere_and_change_nothing(
    state: State, command: bytes, code: int
) -> None:
    driver = reach(state)
    assert driver.codes(command) == [code]
    assert driver.session.state is state


@pytest.mark.parametrize("state", READS, ids=lambda s: s.name)
def test_rset_forgets_the_transaction_and_never_the_greeting(state: State) -> None:
    driver = reach(state)
    assert driver.codes(b"RSET\r\n") == [250]
    after = State.CONNECTED if state is State.CONNECTED else State.READY
    assert driver.session.state is after


@pytest.mark.parametrize("state", READS, ids=lambda s: s.name)
def test_starttls_begins_a_new_session_outside_a_transaction_only(state: State) -> None:
    driver = reach(state)
    if state in (State.CONNECTED, State.READY):
        assert driver.codes(b"STARTTLS\r\n") == [220]
        assert driver.session.state is State.CONNECTED
        assert driver.codes(b"MAIL FROM:<a@b.example>\r\n") == [503]
        assert b"STARTTLS" not in driver.feed(_HELLO)
    else:
        assert driver.codes(b"STARTTLS\r\n") == [503]
        assert driver.session.state is state


@pytest.mark.parametrize("state", [State.IN_DATA, State.IN_CHUNK], ids=lambda s: s.name)
@pytest.mark.parametrize("command", [*COMMANDS, b"RSET\r\n", b"STARTTLS\r\n"])
def test_content_is_never_read_as_commands(state: State, command: bytes) -> None:
    driver = reach(state)
    assert driver.feed(command) == b""
    assert driver.session.state is state


@pytest.mark.parametrize("command", [*COMMANDS, b"RSET\r\n", b"NOOP\r\n"])
def test_a_closed_session_says_nothing_more(command: bytes) -> None:
    assert reach(State.CLOSED).feed(command) == b""


@pytest.mark.parametrize("state", REACH, ids=lambda s: s.name)
def test_every_state_can_be_closed_by_us(state: State) -> None:
    driver = reach(state)
    driver.session.close(Reply(421, "4.4.2", "Timeout"))
    said = driver.session.take_output()
    assert codes_of(said) == ([] if state is State.CLOSED else [421])
    assert driver.session.state is State.CLOSED
    assert driver.session.closed


def test_the_ends_of_content_lead_where_the_table_says() -> None:
    driver = reach(State.IN_DATA)
    assert driver.codes(b"x\r\n.\r\n") == [250]
    assert driver.session.state is TRANSITIONS[State.IN_DATA][Step.DATA_END]
    driver = reach(State.IN_CHUNK)
    assert driver.codes(b"x" * 397) == [250]
    assert driver.session.state is TRANSITIONS[State.IN_CHUNK][Step.CHUNK_END]
    driver = reach(State.BETWEEN_CHUNKS)
    assert driver.codes(b"BDAT 1 LAST\r\nx") == [250]
    assert driver.session.state is TRANSITIONS[State.IN_CHUNK][Step.LAST_CHUNK_END]


def test_the_table_is_whole_and_every_state_is_reached_and_left() -> None:
    assert set(TRANSITIONS) == set(State)
    targets = {target for row in TRANSITIONS.values() for target in row.values()}
    assert targets == set(State)
    assert all(row for state, row in TRANSITIONS.items() if state is not State.CLOSED)
    assert {step for row in TRANSITIONS.values() for step in row} == set(Step)
