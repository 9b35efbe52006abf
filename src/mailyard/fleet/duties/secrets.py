"""After a change of the master key: what the old one sealed is sealed under the new one."""

from typing import Protocol

import structlog

from mailyard.fleet.duty import Duty

EVERY_S = 60.0

_LOG = structlog.get_logger(__name__)


class Keeper(Protocol):
    """A room that keeps sealed secrets."""

    async def seal_anew(self) -> int: ...


def seal_anew(*keepers: Keeper) -> Duty:
    """Once this has nothing to say any more, the old master key can go."""

    async def do() -> bool:
        sealed = sum([await keeper.seal_anew() for keeper in keepers])
        if sealed:
            _LOG.info("secrets_sealed_anew", secrets=sealed)
        return bool(sealed)

    return Duty("seal-secrets-anew", EVERY_S, do)
