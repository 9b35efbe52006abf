"""A campaign as a value: what a caller may ask for, and how one stands."""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import msgspec

from mailyard.campaigns.states import State
from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.sending.request import check_line, check_mailbox, check_type
from mailyard.sending.track.tracking import format_utm

NAME_CHARACTERS = 200
RATE_MAX_PER_S = 1_000_000.0
UTM_CHARACTERS = 200


class Following(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether opens and clicks are followed; what is not said is as the workspace has it."""

    opens: bool | None = None
    clicks: bool | None = None


class Utm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is appended to the links of a campaign as `utm_source`, `utm_medium`, …"""

    source: str = ""
    medium: str = ""
    campaign: str = ""
    term: str = ""
    content: str = ""


class NewCampaign(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """What a caller creates a campaign from, to a list or to a segment. Ids are TypeIDs;
    `rate_per_s` None: no limit.

    A start before `send_at` waits for it. `local_time` (`2026-12-24T09:00`) is on each recipient's
    clock.
    """

    name: str
    template: str
    sender: str
    list: str | None = None
    segment: str | None = None
    reply_to: str = ""
    list_unsubscribe: str = ""
    rate_per_s: float | None = None
    type: str = "campaign"
    template_version: int | None = None
    topic: str | None = None
    track: Following = Following()
    utm: Utm = Utm()
    send_at: datetime | None = None
    local_time: str | None = None


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign as it stands."""

    id: UUID
    workspace_id: UUID
    name: str
    type: str
    template_id: UUID
    template_version: int
    list_id: UUID | None
    segment_id: UUID | None
    sender: str
    reply_to: str
    list_unsubscribe: str
    rate_per_s: float | None
    state: State
    created_at: datetime
    first_started_at: datetime | None
    finished_at: datetime | None
    recipients: int
    planned: bool
    topic_id: UUID | None
    track_opens: bool
    track_clicks: bool
    utm: str
    send_at: datetime | None
    local_time: datetime | None


def check_new(new: NewCampaign) -> None:
    """What needs no look at the workspace. Raises InvalidInput naming the field."""
    check_line(new.name, "name", NAME_CHARACTERS)
    if not new.name.strip():
        raise InvalidInput("a campaign needs a name", field="name")
    check_type(new.type)
    check_mailbox(new.sender, "from")
    if new.reply_to:
        check_mailbox(new.reply_to, "reply_to")
    _check_unsubscribe(new.list_unsubscribe)
    _check_rate(new.rate_per_s)


def _check_unsubscribe(url: str) -> None:
    check_line(url, "list_unsubscribe", limits.HEADER_LINE_BYTES - 100)
    if url and (urlsplit(url).scheme != "https" or not urlsplit(url).hostname):
        raise InvalidInput("an https address (RFC 8058 section 3.1)", field="list_unsubscribe")


def _check_rate(rate_per_s: float | None) -> None:
    if rate_per_s is None:
        return
    if not math.isfinite(rate_per_s) or not 0.01 <= rate_per_s <= RATE_MAX_PER_S:
        raise InvalidInput(f"from 0.01 to {RATE_MAX_PER_S:g} a second", field="rate_per_s")


def checked_utm(utm: Utm) -> str:
    """The parameters as they are appended. Raises InvalidInput."""
    tags = msgspec.structs.asdict(utm)
    for name, value in tags.items():
        check_line(value, f"utm.{name}", UTM_CHARACTERS)
    return format_utm(tags)


def campaign_of(row: asyncpg.Record) -> Campaign:
    """A row as a campaign."""
    values: dict[str, Any] = {**row, "state": State(row["state"])}
    return Campaign(**values)
