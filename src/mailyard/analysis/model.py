"""The port of a language model: one question, one text. It has no tools and is given none."""

from typing import Protocol

from msgspec import Struct

from mailyard.analysis.prompt import Prompt


class Said(Struct, frozen=True):
    """What a model said, and what it counted. None: it did not count."""

    text: str
    input_tokens: int | None
    output_tokens: int | None


class ModelFailure(Exception):
    """No answer. `passing`: another try may do; `retry_after_s`: when its server says so.

    `charged`: the question may have been read, so it is counted as used. `decisive`: the account or
    the settings are wrong, and will be until somebody mends them.
    """

    def __init__(
        self,
        why: str,
        *,
        passing: bool = True,
        retry_after_s: float = 0.0,
        charged: bool = True,
        decisive: bool = False,
        said: Said | None = None,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.passing = passing
        self.retry_after_s = retry_after_s
        self.charged = charged
        self.decisive = decisive
        self.said = said


class Model(Protocol):
    """One way to ask."""

    async def ask(self, prompt: Prompt, max_output_tokens: int) -> Said:
        """The answer's text. Raises ModelFailure."""
        ...
