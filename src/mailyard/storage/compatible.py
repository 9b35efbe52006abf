"""Which statements of a migration take something from the build before it.

Two versions in a row work on one schema: that is what a rolling upgrade and its rolling back are
made of. So a version adds (tables, columns that may be null or have a default, indexes), and only
the next one takes away what nobody uses any more. A migration that takes away says from where on
builds can live with it, by how many migrations they know:

    -- breaks builds below 0050
    ALTER TABLE contact DROP COLUMN old_name;

The number is that of the migration with which the code stopped using it. What looks like taking
away and is not carries its reason in a comment right above: `-- compatible: …`.
"""

import re
from collections.abc import Sequence

from mailyard.storage.migrate import Migration
from mailyard.storage.online import statements

BEFORE_THE_RULE = 46  # builds that know no more than this do not read what is said here

_NAME = r'"?([a-z_][a-z0-9_]*)"?'
_MADE = re.compile(rf"CREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}", re.I)
_ALTERED = re.compile(rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_NAME}", re.I)
_TAKES = (
    (r"^DROP\s+(TABLE|VIEW|FUNCTION|TYPE|SEQUENCE)\b", "the build before uses it"),
    (r"^ALTER\s+(TABLE|FUNCTION|TYPE)\b.*\bRENAME\b", "the build before knows the old name"),
    (r"^ALTER\s+TABLE\b.*\bDROP\s+(?!DEFAULT|NOT|CONSTRAINT)", "the build before reads the column"),
    (r"^ALTER\s+TABLE\b.*\bTYPE\b", "the build before writes the old type"),
    (r"^ALTER\s+TABLE\b.*\bSET\s+NOT\s+NULL\b", "the build before writes none"),
    (r"^ALTER\s+TABLE\b.*\bDROP\s+DEFAULT\b", "the build before leaves the value out"),
    (r"^ALTER\s+TABLE\b.*\bADD\s+CONSTRAINT\b", "the build before may write what it forbids"),
)
_NEW_COLUMN = re.compile(
    r"ADD\s+(?:COLUMN\s+)?(?:IF\s+NOT\s+EXISTS\s+)?(?!CONSTRAINT)\w+\s+[^,]*\bNOT\s+NULL\b"
    r"(?![^,]*\bDEFAULT\b)",
    re.I,
)


def takes_away(text: str) -> list[str]:
    """What of a migration's text the build before it would miss, each with why."""
    made: set[str] = set()
    found = []
    for statement in statements(text.replace("-- compatible:", "-- online:")):
        created = _MADE.match(statement.text)
        if created is not None:
            made.add(created[1].lower())
        altered = _ALTERED.match(statement.text)
        if statement.reason or (altered is not None and altered[1].lower() in made):
            continue
        found += [
            f"{' '.join(statement.text.split())[:90]}: {why}" for why in _whys(statement.text)
        ]
    return found


def _whys(text: str) -> list[str]:
    whys = [why for pattern, why in _TAKES if re.search(pattern, text, re.I | re.S)]
    plain = re.sub(r"\bDEFAULT\s+[^,]*?\bNOT\s+NULL\b", "DEFAULT", text, flags=re.I)
    if re.match(r"ALTER\s+TABLE\b", text, re.I) and _NEW_COLUMN.search(plain):
        whys.append("the build before leaves the column out: give it a default")
    return whys


def judge_all(migrations: Sequence[Migration]) -> dict[str, list[str]]:
    """By name of the migration, what is taken away and not said, or said wrongly."""
    found: dict[str, list[str]] = {}
    for one in migrations:
        if one.number <= BEFORE_THE_RULE:
            continue
        said = one.breaks_below
        wrong = takes_away(one.text) if said is None else []
        if said is not None and not BEFORE_THE_RULE < said < one.number:
            wrong = [f"it breaks builds below {said:04d}: none is left that could be upgraded"]
        if wrong:
            found[f"{one.number:04d}_{one.name}"] = wrong
    return found
