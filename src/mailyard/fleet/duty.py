"""A duty of the scheduler: something small that is done again and again by whoever leads.

Every duty is safe to run twice at once, because a leader may find out late that it was replaced;
none is begun once its lease has run out.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random

import structlog

from mailyard.core.backoff import Backoff
from mailyard.fleet.fence import Fence
from mailyard.observe.reason import reason_of

_LOG = structlog.get_logger(__name__)
AFTER_FAILURE = Backoff(first_s=1.0, cap_s=30.0)
_LOOK_AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Duty:
    """`do` is called at once and then `every_s` seconds after it has returned.

    `do` answers whether there is more to do right now: then it is called again without a wait.
    """

    name: str
    every_s: float
    do: Callable[[], Awaitable[bool]]


async def perform(
    duties: Sequence[Duty], fence: Fence | None = None, random: Random | None = None
) -> None:
    """Do all duties side by side until cancelled. One that fails is logged and tried again.

    `fence`: the term of the leader that does them; none is begun while its lease does not hold.
    """
    async with asyncio.TaskGroup() as tasks:
        for duty in duties:
            tasks.create_task(_repeat(duty, fence, random or Random()), name=f"duty-{duty.name}")


async def _repeat(duty: Duty, fence: Fence | None, random: Random) -> None:
    failures = 0
    while True:
        if fence is not None and not fence.holds:
            await asyncio.sleep(_LOOK_AGAIN_S)  # renewed soon, or cancelled
            continue
        try:
            more = await duty.do()
        except Exception as error:
            failures += 1
            reason = reason_of(error)
            _LOG.warning(
                "duty_failed", duty=duty.name, failures=failures, error=reason, exc_info=error
            )
            await asyncio.sleep(AFTER_FAILURE.delay_s(failures, random))
            continue
        failures = 0
        await asyncio.sleep(0.0 if more else duty.every_s * (0.9 + 0.2 * random.random()))
