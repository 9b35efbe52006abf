"""Looks into the layers, counted: `/metrics` and `/stats` show them by kind and layer."""

from collections.abc import Callable

from mailyard.cache.kind import Kind
from mailyard.observe.metrics import CACHE_LOOKUPS


def count(kind: Kind, layer: str, *, hit: bool) -> None:
    """One look into `layer` (process, shared or result) for a value of `kind`."""
    CACHE_LOOKUPS.labels(kind.name, layer, "hit" if hit else "miss").inc()


def hits_of(kind: Kind, layer: str) -> Callable[[], None]:
    """Counts one hit a call: for ways on which a microsecond is much."""
    return CACHE_LOOKUPS.labels(kind.name, layer, "hit").inc
