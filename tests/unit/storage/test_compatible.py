"""Migrations that leave the build before them at work."""

import pytest

from mailyard.storage.compatible import judge_all, takes_away
from mailyard.storage.migrate import Migration, known_migrations


def test_every_migration_since_the_rule_leaves_the_build_before_at_work() -> None:
    assert judge_all(known_migrations()) == {}


@pytest.mark.parametrize(
    "text",
    [
        "DROP TABLE contact",
        "DROP FUNCTION enqueue(text)",
        "ALTER TABLE contact RENAME COLUMN a TO b",
        "ALTER TABLE webhook RENAME TO hook",
        "ALTER TABLE contact DROP COLUMN a",
        "ALTER TABLE contact DROP IF EXISTS a",
        "ALTER TABLE webhook ALTER COLUMN a TYPE bigint",
        "ALTER TABLE webhook ALTER COLUMN a SET NOT NULL",
        "ALTER TABLE webhook ALTER COLUMN a DROP DEFAULT",
        "ALTER TABLE webhook ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
        "ALTER TABLE webhook ADD COLUMN a integer NOT NULL",
        "ALTER TABLE webhook ADD a integer NOT NULL, ADD b integer DEFAULT 1",
    ],
)
def test_what_is_taken_from_the_build_before_is_named(text: str) -> None:
    assert takes_away(text + ";")


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE x (a integer NOT NULL); ALTER TABLE x ADD CONSTRAINT c CHECK (a > 0)",
        "ALTER TABLE contact ADD COLUMN a integer, ADD b text NOT NULL DEFAULT ''",
        "ALTER TABLE contact ADD b text DEFAULT '' NOT NULL",
        "ALTER TABLE contact ALTER COLUMN a DROP NOT NULL",
        "ALTER TABLE contact DROP CONSTRAINT c",
        "CREATE INDEX x ON webhook (id)",
        "-- compatible: nothing has ever been written to it\nDROP TABLE never_used",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$",
    ],
)
def test_what_only_adds_passes(text: str) -> None:
    assert takes_away(text + ";") == []


def test_a_migration_that_says_what_it_breaks_passes_unless_nobody_could_upgrade_to_it() -> None:
    text = "-- breaks builds below {}\nDROP TABLE contact;"
    told = Migration(49, "drop", text.format("0048"))
    assert told.breaks_below == 48
    assert judge_all([told]) == {}
    assert list(judge_all([Migration(49, "drop", text.format("0049"))])) == ["0049_drop"]
    assert list(judge_all([Migration(49, "drop", "DROP TABLE contact;")])) == ["0049_drop"]
