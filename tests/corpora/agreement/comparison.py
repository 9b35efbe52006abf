"""One fact of one case, as two parsers see it, and the tally of many."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from mailyard.protocol.mime import Message
from mailyard.protocol.mime.structure import Part

Family = Mapping[str, bytes]  # file name -> bytes


class Comparison(NamedTuple):
    """`case` is a file, with a part's path behind `#` where it is about one part."""

    case: str
    aspect: str  # tree, header, address, date, text, content, name …
    ours: object
    theirs: object

    @property
    def agrees(self) -> bool:
        return self.ours == self.theirs

    @property
    def key(self) -> str:
        """How the docs name it."""
        return f"{self.case} {self.aspect}"


class Tally:
    """How many facts of a family agree, by aspect."""

    def __init__(self, comparisons: Iterable[Comparison]) -> None:
        self.compared: Counter[str] = Counter()
        self.agreed: Counter[str] = Counter()
        self.disagreements: list[Comparison] = []
        for comparison in comparisons:
            self.compared[comparison.aspect] += 1
            if comparison.agrees:
                self.agreed[comparison.aspect] += 1
            else:
                self.disagreements.append(comparison)

    @property
    def share(self) -> float:
        return self.agreed.total() / max(1, self.compared.total())


def flat(text: str | None) -> str:
    """`text` without white space: parsers differ in folds and line ends, which say nothing."""
    return "".join((text or "").split())


def walk(part: Part) -> Iterator[Part]:
    """`part` and all below it, in order."""
    yield part
    for child in part.children:
        yield from walk(child)


def below(path: str, case: str) -> str:
    return f"{case}#{path}" if path else case


def text_of(message: Message, part: Part) -> str:
    return message.part_text(part)
