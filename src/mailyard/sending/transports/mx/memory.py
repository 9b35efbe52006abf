"""What is remembered of hosts after the last connection to them is gone."""

from collections import OrderedDict

NAMES_MAX = 10_000


class Memory:
    """Names until an instant, the longest untouched forgotten first. Seconds of any one clock."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()

    def keep(self, name: str, until: float) -> None:
        """Remember `name` until then."""
        self._until[name] = until
        self._until.move_to_end(name)
        while len(self._until) > NAMES_MAX:
            self._until.popitem(last=False)

    def has(self, name: str, now: float) -> bool:
        """Whether `name` is remembered at `now`."""
        until = self._until.get(name)
        if until is None:
            return False
        if now >= until:
            del self._until[name]
            return False
        return True
