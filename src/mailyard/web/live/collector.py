"""Python's garbage collector, and ten thousand connections that only wait.

A full collection looks at every object there is: with all places taken at a million, which takes a
tenth of a second in which nobody is told anything. Nearly all of them belong to connections that
wait, and go by their reference count when those end. So what has gathered is set aside (`gc.freeze`
costs nothing) whenever some hundred connections have come, and looked at again when many have left
and long enough after the last time: what of those hung together in a circle goes then.
"""

import gc
from collections.abc import Callable
from time import monotonic

_COME = 200  # more than were open when it was last set aside
_LEFT = 2_000  # since everything was last looked at
_AGAIN_S = 600.0  # between two looks at everything


class Collector:
    """Call `tend` about once a second with how many connections are open and have come so far."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._came = 0  # when it was last set aside
        self._left = 0  # when everything was last looked at
        self._looked_at = clock()

    def tend(self, opened: int, came: int) -> None:
        """Set aside what has gathered, or look at everything, where it is time for that."""
        left = came - opened
        if left - self._left >= _LEFT and self._clock() - self._looked_at >= _AGAIN_S:
            gc.unfreeze()
            gc.collect()
            gc.freeze()
            self._came, self._left, self._looked_at = came, left, self._clock()
        elif came - self._came >= _COME:
            gc.freeze()
            self._came = came
