"""Alerts as rows: what is open, what was, what was told of it.

One open row for a rule and subject, held by the database, so that two schedulers that lead at once
raise it once. The notices of a change are written with it, and nothing is told without a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from mailyard.core import ids
from mailyard.core.clock import Clock, SystemClock
from mailyard.fleet.alerts.judge import RESOLVED, Change, State, judge_all
from mailyard.fleet.alerts.rule import Rule
from mailyard.fleet.figures import Figures
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("monitoring")
LAST_ID = UUID(int=(1 << 128) - 1)
KEPT_DAYS = 90
_PERCENT = ("_share", ".share", ".used")


@dataclass(frozen=True, slots=True)
class Told:
    """One notice of an alert."""

    event: str
    channel: str
    at: datetime
    sent_at: datetime | None
    tries: int
    error: str


@dataclass(frozen=True, slots=True)
class Alert:
    """What is or was not as it should be. `since`: when it began to be so."""

    id: UUID
    rule: str
    subject: str
    level: str
    worst: str
    value: float
    about: str
    since: datetime
    started_at: datetime
    ended_at: datetime | None
    told: Sequence[Told] = ()


@dataclass(slots=True)
class _Open:
    id: UUID
    level: str


def sentence(rule: Rule, subject: str, value: float) -> str:
    """What is the matter, in words."""
    percent = rule.metric.endswith(_PERCENT)
    shown = f"{value * 100:.3g} %" if percent else f"{value:.4g}"
    return rule.about.replace("{value}", shown).replace("{subject}", subject)


class AlertBoard:
    """Judges with `rules` and writes what changes. `channels`: over which it is told."""

    def __init__(
        self,
        *,
        database: Database,
        rules: Sequence[Rule],
        channels: Sequence[str] = (),
        clock: Clock | None = None,
    ) -> None:
        self._database = database
        self._rules = rules
        self._channels = list(channels)
        self._clock = clock or SystemClock()
        self._states: dict[str, Mapping[str, State]] = {}
        self._open: dict[tuple[str, str], _Open] | None = None

    async def judge(self, figures: Figures, now_s: float) -> int:
        """One round; how many changes there were. `now_s`: since 1970, by the database's clock."""
        if self._open is None:
            self._open = await self._recall()
        count = 0
        for rule in self._rules:
            changes, after = judge_all(
                rule, self._states.get(rule.name, {}), figures.get(rule.metric, {}), now_s
            )
            for subject, change in changes:
                await self._write(self._open, rule, subject, change)
            self._states[rule.name] = after
            count += len(changes)
        return count

    async def _recall(self) -> dict[tuple[str, str], _Open]:
        """What the leader before has raised; what no rule is about any more is ended."""
        found = {}
        rules = {rule.name for rule in self._rules}
        for row in await self._database.fetch(_SQL.open_alerts):
            rule, subject = row["rule"], row["subject"]
            if rule not in rules:
                await self._database.execute(_SQL.end_alert, row["id"], row["value"])
                continue
            found[rule, subject] = _Open(row["id"], row["level"])
            states = dict(self._states.get(rule, {}))
            begun_s = row["since"].timestamp()
            critical = begun_s if row["level"] == "critical" else None
            states[subject] = State(level=row["level"], warned=begun_s, critical=critical)
            self._states[rule] = states
        return found

    async def _write(
        self, known: dict[tuple[str, str], _Open], rule: Rule, subject: str, change: Change
    ) -> None:
        before = known.get((rule.name, subject))
        async with self._database.transaction() as tx:
            if change.event == RESOLVED:
                if before is None:
                    return
                known.pop((rule.name, subject))
                alert_id = await self._database.fetchval(
                    _SQL.end_alert, before.id, change.value, tx=tx
                )
            elif before is not None:
                alert_id = await self._database.fetchval(
                    _SQL.change_alert, before.id, before.level, change.event, change.value, tx=tx
                )
                before.level = change.event
            else:
                alert_id = ids.uuid7()
                known[rule.name, subject] = _Open(alert_id, change.event)
                alert_id = await self._database.fetchval(
                    _SQL.raise_alert,
                    alert_id,
                    rule.name,
                    subject,
                    change.event,
                    change.value,
                    datetime.fromtimestamp(change.since, UTC),
                    sentence(rule, subject, change.value),
                    tx=tx,
                )
            if alert_id is not None and self._channels:
                await self._database.execute(
                    _SQL.add_notices, alert_id, change.event, self._channels, change.value, tx=tx
                )

    async def list(
        self, *, before: UUID = LAST_ID, only_open: bool = False, limit: int = 100
    ) -> list[Alert]:
        """The newest first, with what was told of each."""
        rows = await self._database.fetch(_SQL.list_alerts, before, only_open, limit)
        told: dict[UUID, list[Told]] = {}
        for row in await self._database.fetch(_SQL.notices_of, [row["id"] for row in rows]):
            told.setdefault(row["alert_id"], []).append(
                Told(
                    row["event"],
                    row["channel"],
                    row["at"],
                    row["sent_at"],
                    row["tries"],
                    row["error"],
                )
            )
        return [
            Alert(
                id=row["id"],
                rule=row["rule"],
                subject=row["subject"],
                level=row["level"],
                worst=row["worst"],
                value=row["value"],
                about=row["about"],
                since=row["since"],
                started_at=row["started_at"],
                ended_at=row["ended_at"],
                told=told.get(row["id"], ()),
            )
            for row in rows
        ]

    async def forget(self) -> None:
        """Alerts that ended long ago."""
        before = ids.lowest_at(self._clock.now() - timedelta(days=KEPT_DAYS))
        await self._database.execute(_SQL.forget_alerts, before)
