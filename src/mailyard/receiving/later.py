"""A reply that is not there yet."""

import asyncio
from collections.abc import Callable, Generator

import structlog

from mailyard.protocol.smtp.reply import Reply

_log = structlog.get_logger(__name__)


class Later:
    """A Future of one event loop without its price: whoever settles it calls the one who waits,
    and no turn of the loop lies between, of which a listener would take two for every message."""

    __slots__ = ("_outcome", "_then")

    def __init__(self) -> None:
        self._outcome: Reply | Exception | None = None
        self._then: Callable[[Reply | Exception], None] | None = None

    def settle(self, outcome: Reply | Exception) -> None:
        """The answer, or why there is none. Once; what comes after is not heard."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        if self._then is not None:
            self._call(self._then, outcome)

    def then(self, call: Callable[[Reply | Exception], None]) -> None:
        """Let `call` know, at once when it is settled. There is room for one."""
        assert self._then is None, "somebody waits already"
        self._then = call
        if self._outcome is not None:
            self._call(call, self._outcome)

    def __await__(self) -> Generator[object, None, Reply]:
        if self._outcome is None:
            settled = asyncio.get_running_loop().create_future()
            self.then(lambda _: None if settled.done() else settled.set_result(None))
            yield from settled
        assert self._outcome is not None
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _call(self, call: Callable[[Reply | Exception], None], outcome: Reply | Exception) -> None:
        try:
            call(outcome)
        except Exception:  # who settles many at once must not stop at one of them
            _log.exception("smtp_answer_not_taken")
