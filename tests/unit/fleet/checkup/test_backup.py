"""What doctor says of backups."""

from datetime import UTC, datetime, timedelta

import pytest

from mailyard.core.errors import Unavailable
from mailyard.fleet.checkup.backup import check_backup, judge
from mailyard.fleet.checkup.finding import Grade

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


@pytest.mark.parametrize(
    ("base_h", "drill_h", "grade", "said"),
    [
        (None, None, Grade.BAD, "none was ever finished"),
        (25, 1, Grade.BAD, "25 h old"),
        (2, None, Grade.WARN, "never restored"),
        (2, 24 * 15, Grade.WARN, "15 days ago"),
        (2, 24 * 6, Grade.GOOD, "2 h old, restored on trial 6 days ago"),
    ],
)
def test_a_backup_is_fresh_and_was_restored(
    base_h: float | None, drill_h: float | None, grade: Grade, said: str
) -> None:
    hours = {"base": base_h, "drill": drill_h}
    last = {kind: NOW - timedelta(hours=h) for kind, h in hours.items() if h is not None}
    finding = judge(last, NOW, WEEK)
    assert finding.grade is grade and said in finding.found
    assert bool(finding.fix) is (grade is not Grade.GOOD)


def test_who_restores_by_hand_is_not_hurried() -> None:
    last = {"base": NOW, "drill": NOW - timedelta(days=300)}
    assert judge(last, NOW, timedelta(0)).grade is Grade.GOOD


async def test_without_a_store_or_a_database_it_says_so() -> None:
    async def away() -> dict[str, datetime]:
        raise Unavailable("PostgreSQL does not answer")

    assert "MAILYARD_BACKUP" in (await check_backup("", away, WEEK)).fix
    assert "does not answer" in (await check_backup("file:///x", away, WEEK)).found
