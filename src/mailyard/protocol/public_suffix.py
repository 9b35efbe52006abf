"""The public suffix list (publicsuffix.org): which names anybody can register below.

DMARC of 2015 (RFC 7489 section 3.2) finds the organisational domain so; the tree walk of RFC 9989
needs no list. `SuffixList` is made of the list's text once and is asked often.
"""

from collections.abc import Iterator

from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import ascii_domain

RULES = 100_000  # the list had 10,000 in 2025


class SuffixList:
    """The rules of a list's text. Lines that are no rule are passed over."""

    __slots__ = ("_exceptions", "_rules", "_wildcards")

    def __init__(self, text: str) -> None:
        self._rules: set[str] = set()
        self._wildcards: set[str] = set()
        self._exceptions: set[str] = set()
        for count, rule in enumerate(_rules_of(text)):
            if count >= RULES:
                break
            if rule.startswith("!"):
                self._exceptions.add(rule[1:])
            elif rule.startswith("*."):
                self._wildcards.add(rule[2:])
            else:
                self._rules.add(rule)

    def __len__(self) -> int:
        return len(self._rules) + len(self._wildcards) + len(self._exceptions)

    def registrable(self, domain: str) -> str:
        """The public suffix of `domain` with one label more, as `domain` writes it, in lower case;
        empty when `domain` is itself a suffix or no name."""
        written = domain.lower().removesuffix(".").split(".")
        try:
            labels = ascii_domain(".".join(written)).split(".")
        except InvalidInput:
            return ""
        if "" in labels or len(labels) != len(written):
            return ""
        start = len(labels) - self._suffix_labels(labels) - 1
        return ".".join(written[start:]) if start >= 0 else ""

    def organisation(self, domain: str) -> str:
        """The organisational domain of `domain` (RFC 7489 section 3.2): a suffix is its own."""
        return self.registrable(domain) or domain

    def _suffix_labels(self, labels: list[str]) -> int:
        """How many labels the longest rule takes; of a name that no rule knows, one."""
        for start in range(len(labels)):
            name = ".".join(labels[start:])
            if name in self._exceptions:
                return len(labels) - start - 1
            if name in self._rules or ".".join(labels[start + 1 :]) in self._wildcards:
                return len(labels) - start
        return 1


def _rules_of(text: str) -> Iterator[str]:
    for line in text.splitlines():
        rule = line.split(None, 1)[0] if line.strip() else ""
        if not rule or rule.startswith("//"):
            continue
        prefix = "!" if rule.startswith("!") else "*." if rule.startswith("*.") else ""
        try:
            yield prefix + ascii_domain(rule.removeprefix(prefix).lower())
        except InvalidInput:
            continue
