"""`python tests/corpora/agreement` prints every family's share and what does not agree."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from corpora.agreement.comparison import Tally
from corpora.agreement.families import FAMILIES
from corpora.conftest import corpora_folder, files_of


def main(chosen: list[str]) -> int:
    for name, compare in FAMILIES.items():
        if chosen and name not in chosen:
            continue
        tally = Tally(compare(dict(files_of(corpora_folder() / name))))
        print(f"{name}: {tally.agreed.total()} of {tally.compared.total()} = {tally.share:.2%}")
        for aspect, count in sorted(tally.compared.items()):
            print(f"    {aspect}: {tally.agreed[aspect]} of {count}")
        for one in tally.disagreements if chosen else ():
            print(f"  {one.key}")
            print(f"      ours   {str(one.ours)[:300]}\n      theirs {str(one.theirs)[:300]}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
