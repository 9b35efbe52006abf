"""Which name speaks for the whole organisation of a domain: the tree walk of DMARC (RFC 9989
section 4.10), which asks DNS where older receivers look into a list of public suffixes.

Pure: `policy_names` says which TXT records to ask for, `organisation_of` what their answers mean.
"""

import re
from collections.abc import Callable, Mapping

from mailyard.protocol.dns_answer import Answer, Result
from mailyard.protocol.dns_dmarc import is_dmarc, record_name

NAMES_ASKED = 8  # section 4.10, step 3: at most so many questions, whatever the name's length
_PSD = re.compile(r"(?:\A|;)[ \t]*psd[ \t]*=[ \t]*([ynu])[ \t]*(?:;|\Z)", re.IGNORECASE)


def policy_names(domain: str) -> tuple[str, ...]:
    """`domain` and the names above it, as far as a walk goes, the longest first."""
    labels = domain.split(".")
    above = labels[1:] if len(labels) <= NAMES_ASKED else labels[-(NAMES_ASKED - 1) :]
    return (domain, *(".".join(above[at:]) for at in range(len(above))))


def organisation_of(domain: str, found: Mapping[str, Result[str]]) -> str:
    """The organisational domain of `domain` (section 4.10.2). `found`: the TXT answers at the
    `record_name` of each of its `policy_names`, by that name."""
    organisation = domain
    below = ""
    for name in policy_names(domain):
        text = _policy(found.get(record_name(name)))
        if text:
            psd = _PSD.search(text)
            kind = psd[1].lower() if psd else "u"
            if kind == "n":
                return name
            if kind == "y" and below:
                return below
            organisation = name
        below = name
    return organisation


def organisational(domain: str, found: Mapping[str, Result[str]]) -> Callable[[str], str]:
    """The organisational domain of names at, below or above `domain`; others speak for themselves
    (who sends from `domain` has no say over them)."""
    organisation = organisation_of(domain, found)

    def of(name: str) -> str:
        return organisation if f".{name}".endswith(f".{organisation}") else name

    return of


def _policy(result: Result[str] | None) -> str:
    """The one DMARC record of an answer; several count as none (section 4.10, step 2)."""
    if not isinstance(result, Answer):
        return ""
    texts = [text for text in result.records if is_dmarc(text)]
    return texts[0] if len(texts) == 1 else ""
