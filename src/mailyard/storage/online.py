"""Which statements of a migration stand still a system that is at work.

A migration runs while older processes serve. What it locks, it locks for all of them; so on a table
that grows with mail, contacts or jobs nothing may be done that takes a strong lock for longer than
a moment: no scan, no rewrite, no index that is built while nobody may write.

`judge` reads a migration's text and names each statement that breaks the rule, and what to write
instead. A table is taken for big unless it is named among the small ones or made in the same
migration. What the rules cannot see (a DO block), or what is known to be harmless, carries its
reason in a comment right above it:

    -- online: the column's values are all null by now, so the scan is of an empty index
    ALTER TABLE …;
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailyard.storage.migrate import BEFORE_THE_RULE

# Tables that hold an operator's or a person's own doing: they stay small whatever is sent.
SMALL_TABLES = frozenset(
    {
        "analysis_model",
        "analysis_policy",
        "api_key",
        "campaign",
        "backup_run",
        "dkim_key",
        "domain",
        "inbound_route",
        "invitation",
        "leader",
        "mail_policy",
        "membership",
        "process",
        "provider",
        "provider_health",
        "provider_hook",
        "queue_count",
        "queue_fold",
        "queue_line",
        "queue_policy",
        "queue_schedule",
        "receiving_domain",
        "reserved_address",
        "route",
        "schema_migration",
        "search_language",
        "search_setting",
        "segment",
        "sending_limits",
        "session",
        "shaping_site",
        "source_state",
        "template",
        "template_draft",
        "template_use",
        "template_version",
        "topic",
        "tracking_domain",
        "user_account",
        "webhook",
        "webhook_cursor",
        "webhook_secret",
        "workspace",
        "written_place",
    }
)

_NAME = r'(?:"?[a-z_]+"?\.)?"?([a-z_][a-z0-9_]*)"?'
_REASON = re.compile(r"--\s*online:\s*(\S.*)")
_CREATE_TABLE = re.compile(
    rf"CREATE\s+(?:UNLOGGED\s+|TEMP(?:ORARY)?\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?{_NAME}", re.I
)
_CREATE_INDEX = re.compile(
    rf"CREATE\s+(?:UNIQUE\s+)?INDEX\s+(CONCURRENTLY\s+)?(?:IF\s+NOT\s+EXISTS\s+)?"
    rf"(?:{_NAME}\s+)?ON\s+(ONLY\s+)?{_NAME}",
    re.I,
)
_ALTER_TABLE = re.compile(
    rf"ALTER\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?:ONLY\s+)?{_NAME}\s+(.*)", re.I | re.S
)
_CHANGES_ROWS = re.compile(rf"(?:UPDATE|DELETE\s+FROM|MERGE\s+INTO)\s+(?:ONLY\s+)?{_NAME}", re.I)
_WITH_CHANGES = re.compile(rf"\b(?:UPDATE|DELETE\s+FROM)\s+(?:ONLY\s+)?{_NAME}", re.I)
_INSERTS = re.compile(rf"INSERT\s+INTO\s+{_NAME}\b(.*)", re.I | re.S)
_PARTITION_OF = re.compile(rf"PARTITION\s+OF\s+{_NAME}", re.I)
_HEAVY = re.compile(
    rf"(LOCK\s+TABLE|LOCK|CLUSTER|VACUUM\s+FULL|TRUNCATE)\s+(?:TABLE\s+)?{_NAME}", re.I
)
_NULL_CHECK = re.compile(r"CHECK\s*\(\s*\(?\s*([a-z_][a-z0-9_]*)\s+IS\s+NOT\s+NULL", re.I)
# What gives another value for each row: the table is written anew for it.
_VOLATILE = re.compile(
    r"\b(gen_random_uuid|uuidv7|random|clock_timestamp|nextval|timeofday|uuid_generate_v\d)\s*\(",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement: its text without comments, and the reason that its comment gives, or ""."""

    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class Offence:
    """A statement that breaks the rule, why, and what to write instead."""

    statement: str
    why: str
    instead: str

    def __str__(self) -> str:
        return f"{' '.join(self.statement.split())[:90]}: {self.why}; {self.instead}"


def statements(text: str) -> list[Statement]:
    """A migration cut at its semicolons, those in strings, bodies and comments left alone."""
    found: list[Statement] = []
    begun: list[str] = []
    reason = ""
    for piece in (match[0] for match in _PIECES.finditer(text)):
        if piece.startswith(("--", "/*")):
            match = _REASON.match(piece)
            reason = match[1] if match is not None else reason
            begun.append(" ")
        elif piece == ";":
            whole = "".join(begun).strip()
            if whole:
                found.append(Statement(whole, reason))
            begun, reason = [], ""
        else:
            begun.append(piece)
    rest = "".join(begun).strip()
    return [*found, Statement(rest, reason)] if rest else found


_PIECES = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|(\$[a-z_]*\$).*?\1|;|[^;'$/-]+|.", re.S | re.I
)


def judge(text: str, validated: set[str] | None = None) -> list[Offence]:
    """What in a migration's text breaks the rule.

    `validated`: columns `table.column` that a check of an earlier migration has shown to hold no
    null; those that this one validates are added.
    """
    known = set() if validated is None else validated
    made: set[str] = set()
    checks: dict[str, str] = {}
    found: list[Offence] = []
    for statement in statements(text):
        offences = list(_judge(statement.text, made, checks, known))
        if not statement.reason:
            found += offences
    return found


def judge_all(texts: Sequence[tuple[int, str, str]]) -> dict[str, list[Offence]]:
    """The offences of each later migration among (number, name, text), by its name."""
    validated: set[str] = set()
    found: dict[str, list[Offence]] = {}
    for number, name, text in texts:
        offences = judge(text, validated)
        if number > BEFORE_THE_RULE and offences:
            found[f"{number:04d}_{name}"] = offences
    return found


def _judge(
    text: str, made: set[str], checks: dict[str, str], validated: set[str]
) -> Iterator[Offence]:
    created = _CREATE_TABLE.match(text)
    if created is not None:
        parent = _PARTITION_OF.search(text)
        if parent is not None and _is_big(parent[1], made):
            yield Offence(
                text,
                f"CREATE TABLE … PARTITION OF locks {parent[1]} against everybody",
                "make the table alone and attach it (storage/partitions.py does)",
            )
        made.add(created[1].lower())
        return
    yield from _judge_index(text, made)
    altered = _ALTER_TABLE.match(text)
    if altered is not None:
        table = altered[1].lower()
        for action in _actions(altered[2]):
            yield from _judge_action(text, table, action, checks, validated, table in made)
        return
    yield from _judge_rows(text, made)
    if re.match(r"REINDEX\b(?!.*\bCONCURRENTLY\b)", text, re.I | re.S):
        yield Offence(text, "REINDEX stops who writes", "write REINDEX … CONCURRENTLY")
    if re.match(r"DO\b", text, re.I):
        yield Offence(text, "what a DO block does cannot be seen", "say it in `-- online: …` above")


def _judge_index(text: str, made: set[str]) -> Iterator[Offence]:
    match = _CREATE_INDEX.match(text)
    if match is None:
        return
    concurrently, only, table = match[1], match[3], match[4].lower()
    if not concurrently and not only and _is_big(table, made):
        yield Offence(
            text,
            f"nobody writes to {table} while the index is built",
            "write CREATE INDEX CONCURRENTLY, in a file that begins with `-- concurrently`",
        )


def _judge_rows(text: str, made: set[str]) -> Iterator[Offence]:
    heavy = _HEAVY.match(text)
    if heavy is not None and _is_big(heavy[2], made):
        yield Offence(text, f"{heavy[1].upper()} keeps everybody out of {heavy[2]}", "leave it out")
    match = _CHANGES_ROWS.match(text) or (
        _WITH_CHANGES.search(text) if re.match(r"WITH\b", text, re.I) else None
    )
    if match is not None and _is_big(match[1], made):
        yield Offence(
            text,
            f"all rows of {match[1]} are changed in one transaction",
            "change them a few thousand at a time in a duty of the scheduler",
        )
    inserts = _INSERTS.match(text)
    if inserts is not None and re.search(r"\bSELECT\b", inserts[2], re.I):
        for source in re.findall(rf"\b(?:FROM|JOIN)\s+{_NAME}", inserts[2], re.I):
            if _is_big(source, made) and source.lower() not in _NO_TABLES:
                yield Offence(
                    text,
                    f"all of {source} is read and written in one transaction",
                    "fill the table in a duty of the scheduler",
                )


_NO_TABLES = frozenset({"generate_series", "unnest", "pg_class", "pg_inherits", "jsonb_each"})


def _judge_action(
    text: str, table: str, action: str, checks: dict[str, str], validated: set[str], own: bool
) -> Iterator[Offence]:
    """One action of an ALTER TABLE. `own`: the table is made in this very migration."""
    said = " ".join(action.split())
    _remember_checks(table, said, checks, validated)
    if own or table in SMALL_TABLES:
        return
    for pattern, why, instead in _ACTIONS:
        if re.match(pattern, said, re.I):
            yield Offence(text, why, instead)
            return
    column = re.match(r"ALTER (?:COLUMN )?(\w+) SET NOT NULL", said, re.I)
    if column is not None and f"{table}.{column[1].lower()}" not in validated:
        yield Offence(
            text,
            f"SET NOT NULL reads all of {table} under a lock",
            f"add CHECK ({column[1]} IS NOT NULL) NOT VALID, validate it in a later migration, "
            "then set it",
        )
    if re.match(
        r"ADD (?:COLUMN )?(?!CONSTRAINT\b|CHECK\b|FOREIGN\b|PRIMARY\b|UNIQUE\b)", said, re.I
    ):
        yield from _judge_column(text, table, said)


def _remember_checks(table: str, said: str, checks: dict[str, str], validated: set[str]) -> None:
    added = re.match(r"ADD CONSTRAINT (\w+) CHECK", said, re.I)
    column = _NULL_CHECK.search(said)
    if added is not None and column is not None:
        checks[added[1].lower()] = column[1].lower()
        validated.add(f"{table}/{added[1].lower()}={column[1].lower()}")
    done = re.match(r"VALIDATE CONSTRAINT (\w+)", said, re.I)
    if done is not None and done[1].lower() not in checks:  # added by an earlier migration
        for known in list(validated):
            head, _, name = known.partition("=")
            if head == f"{table}/{done[1].lower()}":
                validated.add(f"{table}.{name}")


def _judge_column(text: str, table: str, said: str) -> Iterator[Offence]:
    if _VOLATILE.search(said) or re.search(r"\bSERIAL\b|\bIDENTITY\b|\bSTORED\b", said, re.I):
        yield Offence(
            text,
            f"each row of {table} gets a value of its own: the table is written anew",
            "add the column without a value, and fill it a few thousand rows at a time",
        )
    elif re.search(r"\bNOT NULL\b", said, re.I) and not re.search(r"\bDEFAULT\b", said, re.I):
        yield Offence(text, f"rows of {table} have no value for it", "give it a constant default")
    if re.search(r"\b(UNIQUE|PRIMARY KEY|REFERENCES|CHECK)\b", said, re.I):
        yield Offence(
            text,
            f"the constraint is checked on all of {table} under a lock",
            "add the column alone, then the constraint NOT VALID, and validate it later",
        )


_NOT_VALID = "add it NOT VALID, and validate it in a later migration"
_ACTIONS = (
    (
        r"ALTER (COLUMN )?\w+ (SET DATA )?TYPE\b",
        "another type writes the table anew, and its indexes",
        "add a column of the type, write both, fill it, and read it from then on",
    ),
    (
        r"ADD (CONSTRAINT \w+ )?(CHECK|FOREIGN KEY)\b(?!.*NOT VALID)",
        "the constraint is checked on the whole table under a lock",
        _NOT_VALID,
    ),
    (
        r"ADD (CONSTRAINT \w+ )?(UNIQUE|PRIMARY KEY|EXCLUDE)\b(?!.*USING INDEX)",
        "an index is built while nobody may write",
        "build it CONCURRENTLY, then ADD CONSTRAINT … USING INDEX",
    ),
    (
        r"ATTACH PARTITION\b",
        "the partition is read under a lock",
        "let storage/partitions.py attach it, or say in `-- online: …` that it is empty",
    ),
    (r"DETACH PARTITION\b(?!.*(CONCURRENTLY|FINALIZE))", "it locks the parent", "CONCURRENTLY"),
    (r"SET (TABLESPACE|LOGGED|UNLOGGED|ACCESS METHOD)\b", "it writes the table anew", "do not"),
    (
        r"RENAME\b",
        "processes of the version before know the old name",
        "add the new one, use both for a version, drop the old one in the next",
    ),
)


def _actions(text: str) -> list[str]:
    """The actions of an ALTER TABLE, cut at commas outside brackets and strings."""
    found, depth, begun = [], 0, ""
    for piece in re.findall(r"'(?:[^']|'')*'|.", text, re.S):
        depth += (piece == "(") - (piece == ")")
        if piece == "," and depth == 0:
            found.append(begun.strip())
            begun = ""
        else:
            begun += piece
    return [*found, begun.strip()]


def _is_big(table: str, made: set[str]) -> bool:
    return table.lower() not in made and table.lower() not in SMALL_TABLES
