"""What a worker is to write letters about (`account`, `limit_notice`)."""

import secrets
from typing import Literal
from uuid import UUID

import msgspec

from mailyard.queue.job import EMAIL_SEND, NewJob

WRITE = "account-letter"


class Errand(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the worker is to write about. `id` is an invitation's.

    `token` goes into the link: made with the errand, so that one that is run again writes the same.
    """

    about: Literal["sign_up", "reset", "changed", "invitation", "limit"]
    token: str = ""
    email: str = ""
    id: str = ""
    kind: str = ""
    level: str = ""
    used: int = 0
    most: int = 0


def job_of(errand: Errand, workspace_id: UUID | None = None) -> NewJob:
    """The errand as a job; `workspace_id` for what a workspace is told."""
    return NewJob(
        queue=EMAIL_SEND,
        kind=WRITE,
        payload=msgspec.json.encode(errand),
        workspace_id=workspace_id,
        priority=1,
        max_attempts=12,
    )


def new_token() -> str:
    """What goes into a link."""
    return secrets.token_urlsafe(32)
