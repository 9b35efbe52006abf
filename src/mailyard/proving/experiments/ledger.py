"""What the platform has said it holds, and whether it lies in its inbox, once."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from secrets import token_hex

from mailyard.proving.client import ApiClient

_LABEL = "experiment"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of `promised` mails, how many are not there, and how many lie there more than once."""

    promised: int
    lost: int
    twice: int

    @property
    def clean(self) -> bool:
        return self.lost == self.twice == 0


@dataclass(slots=True)
class Ledger:
    """Inboxes of its own and the mails that were promised to lie in them.

    `doubtful`: no answer came, so that they may lie there or not.
    """

    inboxes: Sequence[tuple[str, str]]  # (id, address)
    run: str
    promised: set[int] = field(default_factory=set)
    doubtful: set[int] = field(default_factory=set)
    refused: int = 0

    @classmethod
    async def open(cls, client: ApiClient, inboxes: int) -> "Ledger":
        """Make inboxes of a word of their own."""
        run = token_hex(4)
        made = await client.post(
            "/v1/inboxes/batch",
            {
                "inboxes": [
                    {"address": f"x{run}-{number}", "ttl_s": 86_400, "labels": [_LABEL]}
                    for number in range(inboxes)
                ]
            },
        )
        return cls([(one["id"], one["address"]) for one in made["items"]], run)

    @property
    def next_number(self) -> int:
        """Above all that were used."""
        return 1 + max(self.promised | self.doubtful, default=-1)

    def address(self, number: int) -> str:
        """Who gets mail `number`."""
        return self.inboxes[number % len(self.inboxes)][1]

    def subject(self, number: int) -> str:
        """What mail `number` is known by."""
        return f"experiment {self.run} number {number} of many"

    async def lies_there(self, client: ApiClient) -> int:
        """How many mails lie in the inboxes."""
        return int((await client.get("/v1/messages/count", label=_LABEL))["messages"])

    async def judge(self, client: ApiClient) -> Verdict:
        """Read what every inbox lists and compare."""
        number_of = re.compile(rf"experiment {self.run} number (\d+) of many").search
        seen: Counter[int] = Counter()
        for inbox_id, _ in self.inboxes:
            for item in await client.all(f"/v1/inboxes/{inbox_id}/messages"):
                found = number_of(item["subject"])
                if found:
                    seen[int(found[1])] += 1
        return Verdict(
            promised=len(self.promised),
            lost=len(self.promised - seen.keys()),
            twice=sum(count > 1 and number not in self.doubtful for number, count in seen.items()),
        )
