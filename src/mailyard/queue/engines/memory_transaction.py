"""A transaction of the memory engine: what is done at its commit."""

from collections.abc import Callable


class MemoryTransaction:
    """What a caller of the memory engine passes as `tx`."""

    def __init__(self) -> None:
        self._at_commit: list[Callable[[], object]] = []

    def then(self, act: Callable[[], object]) -> None:
        """Have it done at the commit."""
        self._at_commit.append(act)

    def commit(self) -> None:
        """Do what was asked, in its order."""
        for act in self._at_commit:
            act()


def do(tx: MemoryTransaction | None, act: Callable[[], object]) -> None:
    """At the commit of `tx`, or now."""
    if tx is None:
        act()
    else:
        tx.then(act)
