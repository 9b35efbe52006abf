"""What other parsers make of the public mails, ours makes of them too, but for what the docs tell.

`python tests/corpora/agreement FAMILY` prints the figures and every disagreement.
"""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from corpora.agreement.comparison import Tally
from corpora.agreement.families import FAMILIES
from corpora.conftest import files_of

DOCS = Path(__file__).parents[2] / "docs" / "PARSER.md"
ROW = re.compile(r"^\| (mime-\w+|address) \| `([^`]+)` \| [^|]{3,} \|$", re.MULTILINE)
LEAST_SHARE = 0.97


@pytest.mark.parametrize("family", FAMILIES)
def test_facts_agree_but_for_what_the_docs_tell(corpora: Path, family: str) -> None:
    tally = Tally(FAMILIES[family](dict(files_of(corpora / family))))
    assert tally.compared.total() > 300
    assert tally.share >= LEAST_SHARE
    told = [pattern for name, pattern in ROW.findall(DOCS.read_text()) if name == family]
    found = [one.key for one in tally.disagreements]
    untold = [key for key in found if not any(fnmatchcase(key, pattern) for pattern in told)]
    stale = [pattern for pattern in told if not any(fnmatchcase(key, pattern) for key in found)]
    assert (untold, stale) == ([], [])
