"""The stages that an installation grows through. `docs/DEPLOYMENT.md` describes each."""

from enum import IntEnum

from mailyard.core.errors import InvalidInput


class Stage(IntEnum):
    """By the number that `mailyard doctor --for` takes; `word` is its name."""

    ONE_SERVER = 1
    SEPARATE_ROLES = 2
    FLEET = 3
    REGIONS = 4

    @property
    def word(self) -> str:
        return self.name.lower().replace("_", "-")


def parse_stage(text: str) -> Stage:
    """A stage by its number or its name. Raises InvalidInput."""
    wanted = text.strip().lower().replace("_", "-")
    for stage in Stage:
        if wanted in (str(stage.value), stage.word):
            return stage
    known = ", ".join(f"{stage.value} ({stage.word})" for stage in Stage)
    raise InvalidInput(f"{text!r} is no stage: {known}", field="for")
