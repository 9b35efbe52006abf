"""The phrases of `wording.toml`, read once."""

import tomllib
from importlib.resources import files

from mailyard.protocol.report.phrase import Phrases
from mailyard.protocol.report.values import Stage

_LISTS = tomllib.loads(
    files("mailyard.protocol.report").joinpath("wording.toml").read_text("utf-8")
)


def _phrases(name: str) -> Phrases[bool]:
    return Phrases((phrase, True) for phrase in _LISTS[name])


MAIL_SYSTEMS = _phrases("mail_systems")
SUBJECTS = _phrases("subjects")
FAILS = _phrases("fails")
DELAYS = _phrases("delays")
GIVEN_UP = _phrases("given_up")
CHALLENGES = _phrases("challenges")

# In the order of the file: of several steps that a text names, the refusal came at the first.
STAGES = tuple(Stage(name) for name in _LISTS["stages"])
STAGE = Phrases(
    (phrase, Stage(name)) for name, phrases in _LISTS["stages"].items() for phrase in phrases
)
