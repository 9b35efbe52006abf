"""Calls to Redis as values: a command, or a script on keys of one slot."""

from binascii import crc_hqx
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from zlib import crc32

SLOTS = 16_384  # of a cluster
TAGS = 24  # groups of keys: a batch goes to a cluster in so many pieces at most, pipelined

Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, which Redis runs as one step."""

    text: str
    digest: str


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `keys` all lie in one slot; `script` None: the words are a command."""

    words: tuple[Argument, ...]
    keys: tuple[str, ...] = ()
    script: Script | None = None

    def as_known(self) -> tuple[Argument, ...]:
        """The words on the wire; a script by its digest, which a server may not know yet."""
        if self.script is None:
            return self.words
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.words)

    def in_full(self) -> tuple[Argument, ...]:
        """As `as_known`, teaching the server the script."""
        assert self.script is not None, "only scripts are taught"
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.words)


def command(*words: Argument) -> Call:
    """A plain command."""
    return Call(words)


def run(script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Call:
    """A script on `keys` of one slot."""
    return Call(tuple(arguments), tuple(keys), script)


@cache
def script_of(package: str, name: str) -> Script:
    """The script `name`.lua that lies in `package`."""
    text = files(package).joinpath(f"{name}.lua").read_text("utf-8")
    return Script(text, sha1(text.encode()).hexdigest())


@cache
def tags() -> tuple[str, ...]:
    """The names of the groups. Their slots lie evenly over a cluster, so that each of its servers
    has as many of them, whatever their number is that divides TAGS."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < TAGS:
        name = str(number)
        found.setdefault(slot_of(name) * TAGS // SLOTS, name)
        number += 1
    return tuple(found[place] for place in range(TAGS))


def slot_of(tag: str) -> int:
    """Where keys with this tag lie: CRC16 as in the Redis cluster specification."""
    return crc_hqx(tag.encode(), 0) % SLOTS


def tag_of(key: str) -> str:
    """The group of a key: keys of one group lie in one slot."""
    return tags()[crc32(key.encode()) % TAGS]
