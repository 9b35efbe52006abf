"""Migrations that stand nobody still."""

import pytest

from mailyard.storage.migrate import BEFORE_THE_RULE, known_migrations
from mailyard.storage.online import judge, judge_all, statements


def test_every_migration_since_the_rule_is_online() -> None:
    known = [(one.number, one.name, one.text) for one in known_migrations()]
    assert len(known) >= BEFORE_THE_RULE
    assert {name: list(map(str, found)) for name, found in judge_all(known).items()} == {}


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX x ON delivery (state)",
        "CREATE UNIQUE INDEX IF NOT EXISTS x ON public.delivery (state)",
        "REINDEX TABLE delivery",
        "ALTER TABLE message ALTER COLUMN peer TYPE text",
        "ALTER TABLE message ALTER peer SET DATA TYPE text USING peer::text",
        "ALTER TABLE contact ADD COLUMN token uuid DEFAULT gen_random_uuid()",
        "ALTER TABLE contact ADD number bigint GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE contact ADD COLUMN low text GENERATED ALWAYS AS (lower(email)) STORED",
        "ALTER TABLE contact ADD COLUMN x integer NOT NULL",
        "ALTER TABLE contact ADD COLUMN a text, ADD COLUMN b integer UNIQUE",
        "ALTER TABLE contact ADD COLUMN x uuid REFERENCES workspace (id)",
        "ALTER TABLE contact ALTER COLUMN email SET NOT NULL",
        "ALTER TABLE contact ADD CONSTRAINT c CHECK (x > 0)",
        "ALTER TABLE contact ADD CONSTRAINT c FOREIGN KEY (x) REFERENCES workspace (id)",
        "ALTER TABLE contact ADD CONSTRAINT c UNIQUE (x)",
        "ALTER TABLE contact RENAME COLUMN a TO b",
        "ALTER TABLE contact SET UNLOGGED",
        "ALTER TABLE delivery ATTACH PARTITION x FOR VALUES FROM (1) TO (2)",
        "ALTER TABLE delivery DETACH PARTITION x",
        "CREATE TABLE x PARTITION OF delivery FOR VALUES FROM (1) TO (2)",
        "UPDATE delivery SET state = 'x'",
        "DELETE FROM ONLY contact WHERE true",
        "WITH old AS (DELETE FROM contact RETURNING id) SELECT count(*) FROM old",
        "INSERT INTO workspace SELECT id FROM contact",
        "LOCK TABLE contact",
        "TRUNCATE contact",
        "DO $$ BEGIN PERFORM 1; END $$",
    ],
)
def test_what_stands_others_still_is_named(text: str) -> None:
    (offence,) = judge(text + ";")
    assert offence.why and offence.instead


@pytest.mark.parametrize(
    "text",
    [
        "CREATE INDEX CONCURRENTLY x ON delivery (state)",
        "CREATE TABLE y (id int); CREATE INDEX x ON y (id); UPDATE y SET id = 2",
        "CREATE INDEX x ON webhook (id); UPDATE provider SET name = lower(name)",
        "ALTER TABLE message ADD COLUMN a text, ADD COLUMN b numeric(4, 2) NOT NULL DEFAULT 0",
        "ALTER TABLE contact ADD CONSTRAINT c CHECK (x IS NOT NULL) NOT VALID",
        "ALTER TABLE contact VALIDATE CONSTRAINT c",
        "ALTER TABLE contact ADD CONSTRAINT c UNIQUE USING INDEX x",
        "ALTER TABLE delivery DETACH PARTITION x CONCURRENTLY",
        "ALTER TABLE contact DROP COLUMN a",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ UPDATE contact SET x = 1; SELECT 1; $$",
        "COMMENT ON TABLE contact IS 'UPDATE contact; it''s text'",
        "-- online: it is empty by now\nUPDATE contact SET x = 1",
    ],
)
def test_what_disturbs_nobody_passes(text: str) -> None:
    assert judge(text + ";") == []


def test_not_null_needs_a_check_that_an_earlier_migration_has_validated() -> None:
    add = "ALTER TABLE contact ADD CONSTRAINT has CHECK (x IS NOT NULL) NOT VALID;"
    validate = "ALTER TABLE contact VALIDATE CONSTRAINT has;"
    last = "ALTER TABLE contact ALTER COLUMN x SET NOT NULL;"
    base = BEFORE_THE_RULE
    apart = [(base + n, "m", text) for n, text in enumerate((add, validate, last), 1)]
    assert judge_all(apart) == {}
    together = [(base + 1, "m", add + validate + last)]
    assert len(judge_all(together)[f"{base + 1:04d}_m"]) == 1
    assert len(judge_all([(base + 1, "m", last)])) == 1
    assert judge_all([(base, "m", last)]) == {}, "made before there was the rule"


def test_a_reason_counts_for_the_statement_below_it_alone() -> None:
    text = "-- online: small\nUPDATE contact SET x = 1;\nUPDATE delivery SET y = 1;"
    assert [one.statement for one in judge(text)] == ["UPDATE delivery SET y = 1"]


def test_semicolons_in_strings_bodies_and_comments_cut_nothing() -> None:
    text = "SELECT ';' -- a; b\n; /* ; */ SELECT $x$ ; $x$; SELECT 'it''s;'"
    assert [one.text for one in statements(text)] == [
        "SELECT ';'",
        "SELECT $x$ ; $x$",
        "SELECT 'it''s;'",
    ]
