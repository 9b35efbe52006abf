"""The role processes that `mailyard up` runs under its supervisor."""

import sys

from mailyard.fleet.child import ChildSpec
from mailyard.settings import Settings

ROLES = ("smtp", "api", "worker", "scheduler")


def specs(settings: Settings) -> list[ChildSpec]:
    """The children. What works on jobs and duties is there once more for each other cluster."""
    beside = [
        f"{role}@{shard}" for shard in settings.shard_urls for role in ("worker", "scheduler")
    ]
    return [spec for role in (*ROLES, *beside) for spec in _of_role(settings, role)]


def _of_role(settings: Settings, role: str) -> list[ChildSpec]:
    kind = role.partition("@")[0]
    return [
        ChildSpec(
            name=f"{role}-{number}",
            role=role,
            command=(sys.executable, "-m", "mailyard.cli.roles", role),
            memory_bytes=getattr(settings, f"{kind}_memory"),
        )
        for number in range(1, getattr(settings, f"{kind}_processes") + 1)
    ]
