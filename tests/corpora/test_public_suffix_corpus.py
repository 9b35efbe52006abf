"""The public suffix list's own tests."""

import json
from pathlib import Path

from mailyard.protocol.public_suffix import SuffixList

# The list has no rule for `local`, so its default rule holds; upstream these lines are commented
# out ("listed, but non-Internet, TLD").
NOT_IN_THE_LIST = ("local", "example.local", "b.example.local", "a.b.example.local")


def test_the_registrable_part_of_names(corpora: Path) -> None:
    folder = corpora / "auth-psl"
    suffixes = SuffixList((folder / "public_suffix_list.dat").read_text())
    cases = json.loads((folder / "psl-tests.json").read_text())
    wrong = [
        (case, got)
        for case in cases
        if (got := suffixes.registrable(case["domain"] or "") or None) != case["registrable"]
        and case["domain"] not in NOT_IN_THE_LIST
    ]
    assert cases
    assert not wrong, wrong
