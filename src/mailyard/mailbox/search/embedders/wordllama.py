"""WordLlama: 32,000 pieces of words with a vector each; a text's is their mean.

The package on PyPI carries the model (16 MB) and its way of taking words apart, so that nothing is
fetched at run time. Only these two files are read: to import the package would import what fetches
other models. https://github.com/dleemiller/WordLlama
"""

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
            numpy, weights, tokenizer = self._parts
        encoded = tokenizer.encode_batch(
            [text[:SAMPLE_CHARACTERS].strip() for text in texts], add_special_tokens=False
        )
        vectors: list[Vector | None] = []
        for one in encoded:
            if not one.ids:
                vectors.append(None)
                continue
            mean = weights[one.ids].astype(numpy.float32).mean(axis=0)
            length = float(numpy.linalg.norm(mean))
            vectors.append(_written(numpy, mean / length) if length > 0 else None)
        return vectors

    @cached_property
    def _parts(self) -> tuple[Any, Any, Any]:
        """numpy, the vectors of the pieces, and what takes words apart."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the other cores are others'
        import numpy
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        found = find_spec("wordllama")
        root = Path(found.origin if found and found.origin else "wordllama").parent
        try:
            weights = load_file(root / _WEIGHTS)[_WEIGHTS_NAME]
            tokenizer = Tokenizer.from_file(str(root / _TOKENIZER))
        except Exception as error:
            raise ConfigurationError(
                f"the model in {root} cannot be read ({error}): install mailyard[semantic] anew"
            ) from error
        assert weights.shape[1] == DIMENSIONS
        return numpy, weights, tokenizer


def _written(numpy: Any, vector: Any) -> Vector:
    signs = int.from_bytes(numpy.packbits(vector > 0).tobytes(), "big")
    half = "[" + ",".join([f"{number:.4f}" for number in vector.tolist()]) + "]"
    return Vector(half, f"{signs:0{DIMENSIONS}b}")
