"""Tells what the board has written down: by mail, to a webhook, to a chat.

A notice is a row until it has been told; another scheduler takes it over when this one ends in the
middle, so that a notice may come twice and never not at all (a webhook's `id` tells which).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from random import Random

import msgspec
import structlog

from mailyard.core import ids
from mailyard.core.backoff import Backoff
from mailyard.core.errors import MailyardError, Unavailable
from mailyard.storage.database import Database
from mailyard.storage.queries import load

_SQL = load("monitoring")
MAIL, WEBHOOK, SLACK = "mail", "webhook", "slack"
ALERT = "alt"
HELD_S = 60.0
TRIES = 12
AT_ONCE = 20
_AGAIN = Backoff(first_s=5.0, cap_s=900.0)
_MARKS = {"warning": ":warning:", "critical": ":rotating_light:", "resolved": ":white_check_mark:"}
_LOG = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told. `event`: warning, critical, resolved."""

    id: int
    alert: str
    event: str
    rule: str
    subject: str
    about: str
    value: float
    at: datetime
    started_at: datetime

    @property
    def title(self) -> str:
        what = f"{self.rule} {self.subject}".strip()
        return f"[{self.event}] {what}"


Tell = Callable[[Notice], Awaitable[None]]  # raises MailyardError


class Notifier:
    """`channels`: how to tell over each."""

    def __init__(self, *, database: Database, channels: Mapping[str, Tell]) -> None:
        self._database = database
        self._channels = channels
        self._random = Random()

    async def tell(self) -> int:
        """Tell what is due; how many were."""
        if not self._channels:
            return 0
        rows = await self._database.fetch(_SQL.due_notices, HELD_S, TRIES, AT_ONCE)
        for row in rows:
            notice = Notice(
                id=row["id"],
                alert=ids.type_id(ALERT, row["alert_id"]),
                event=row["event"],
                rule=row["rule"],
                subject=row["subject"],
                about=row["about"],
                value=row["value"],
                at=row["at"],
                started_at=row["started_at"],
            )
            channel = self._channels.get(row["channel"])
            try:
                if channel is None:
                    raise Unavailable(f"{row['channel']} is not set up any more")
                await channel(notice)
            except MailyardError as error:
                delay_s = _AGAIN.delay_s(row["tries"], self._random)
                said = error.message[:300]
                await self._database.execute(_SQL.notice_failed, notice.id, said, delay_s)
                _LOG.warning("alert_not_told", channel=row["channel"], error=said)
            else:
                await self._database.execute(_SQL.notice_sent, notice.id)
        return len(rows)


def webhook_body(notice: Notice, page_url: str) -> bytes:
    """What a webhook is sent."""
    return msgspec.json.encode(
        {
            "id": f"{notice.alert}-{notice.id}",
            "alert": notice.alert,
            "event": notice.event,
            "rule": notice.rule,
            "subject": notice.subject,
            "about": notice.about,
            "value": notice.value,
            "at": notice.at,
            "started_at": notice.started_at,
            "page": f"{page_url}/alerts",
        }
    )


def slack_body(notice: Notice, page_url: str) -> bytes:
    """What Slack's incoming webhooks take, and Mattermost's and Rocket.Chat's alike."""
    text = f"{_MARKS.get(notice.event, '')} *{notice.title}*\n{notice.about}\n<{page_url}/alerts>"
    return msgspec.json.encode({"text": text})


def mail_text(notice: Notice, page_url: str) -> str:
    """What a mail says."""
    began = notice.started_at.strftime("%Y-%m-%d %H:%M:%S UTC")
    over = "This is over.\n\n" if notice.event == "resolved" else ""
    return (
        f"{over}{notice.about}\n\nRule: {notice.rule}\nSince: {began}\n\n"
        f"All alerts: {page_url}/alerts\n"
    )
