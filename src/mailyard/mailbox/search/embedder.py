"""The port of search by meaning: it makes a text a point, near those of texts that say the like."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

DIMENSIONS = 256
SAMPLE_CHARACTERS = 1_500  # of a mail: its subject, then as much of its text


class Vector(NamedTuple):
    """As PostgreSQL reads it: `half` a halfvec of length one, `bits` the signs of its numbers."""

    half: str
    bits: str


class Embedder(Protocol):
    """Makes vectors. `model`: a number of its own for each model, never given to another."""

    @property
    def model(self) -> int: ...

    def embed(self, texts: Sequence[str]) -> list[Vector | None]:
        """A vector a text; None for a text that says nothing. Blocks: call it in a thread.

        Raises ConfigurationError when the model's package is not installed.
        """
        ...
