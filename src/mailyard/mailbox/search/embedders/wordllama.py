"""WordLlama: 32,000 pieces of words with a vector each; a text's is the sum of its own.

Each piece counts once, and the more the rarer it is: the vocabulary lists pieces by how early they
were worth one, so a place in it says how common a piece is. Measured in bench/search_by_meaning.py,
where it more than doubles what the plain mean finds.

The package on PyPI carries the model (16 MB) and its way of taking words apart, so that nothing is
fetched at run time. Only these two files are read: to import the package would import what fetches
other models. https://github.com/dleemiller/WordLlama
"""

import math
import os
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from mailyard.core.errors import ConfigurationError
from mailyard.mailbox.search.embedder import DIMENSIONS, SAMPLE_CHARACTERS, Vector

MODEL = 1
_WEIGHTS = "weights/l2_supercat_256.safetensors"
_WORDS_FROM, _WORDS_TO = 259, 29_871  # before and behind them: bytes, and characters by themselves
_CHARACTER = 0.2
_WEIGHTS_NAME = "embedding.weight"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"


class WordLlama:
    """The model. It is read at its first use: some 60 MB."""

    model = MODEL

    def __init__(self) -> None:
        """Raises ConfigurationError when a package is missing."""
        for package in ("wordllama", "numpy", "safetensors", "tokenizers"):
            if find_spec(package) is None:
                raise ConfigurationError(
                    f"search by meaning needs the package {package}: pip install "
                    "'mailyard[semantic]', or set MAILYARD_SEMANTIC_SEARCH=false"
                )
        self._reading = Lock()

    def embed(self, texts: Sequence[str]) -> list[Vector | None]:
        with self._reading:
            numpy, vectors, counts, tokenizer = self._parts
        encoded = tokenizer.encode_batch(
            [text[:SAMPLE_CHARACTERS].strip() for text in texts], add_special_tokens=False
        )
        made: list[Vector | None] = []
        for one in encoded:
            pieces = list(dict.fromkeys(one.ids))
            said = counts[pieces] @ vectors[pieces].astype(numpy.float32)
            length = float(numpy.linalg.norm(said))
            made.append(_written(numpy, said / length) if length > 0 else None)
        return made

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any, Any]:
        """numpy, the vectors of the pieces, how much each counts, and what takes words apart."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the other cores are others'
        import numpy
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        found = find_spec("wordllama")
        root = Path(found.origin if found and found.origin else "wordllama").parent
        try:
            vectors = load_file(root / _WEIGHTS)[_WEIGHTS_NAME]
            tokenizer = Tokenizer.from_file(str(root / _TOKENIZER))
        except Exception as error:
            raise ConfigurationError(
                f"the model in {root} cannot be read ({error}): install mailyard[semantic] anew"
            ) from error
        assert vectors.shape[1] == DIMENSIONS
        places: Any = numpy.arange(len(vectors), dtype=numpy.float32)
        counts = numpy.log1p(numpy.maximum(places - _WORDS_FROM + 1, 0)) / math.log(len(vectors))
        counts[:_WORDS_FROM] = counts[_WORDS_TO:] = _CHARACTER
        return numpy, vectors, counts.astype(numpy.float32), tokenizer


def _written(numpy: Any, vector: Any) -> Vector:
    signs = int.from_bytes(numpy.packbits(vector > 0).tobytes(), "big")
    half = "[" + ",".join([f"{number:.4f}" for number in vector.tolist()]) + "]"
    return Vector(half, f"{signs:0{DIMENSIONS}b}")
