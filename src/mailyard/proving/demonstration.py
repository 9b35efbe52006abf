"""The demonstration: a campaign to inboxes of one's own, every mail opened and compared.

It goes through the front doors only: contacts by the real import, mail over real SMTP, inboxes
read like anybody reads them. Inboxes are opened while the campaign still runs, in the order in
which it writes to them; who had no mail yet is opened again. When nothing is under way any more
the platform is asked how much mail lies in them all: if that is not the mail that was seen, every
inbox is opened anew.

The verdict counts what was lost, came twice or says something else than it must; `unknown` are
recipients of whom a killed worker could not say whether their mail left, which is neither.
"""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Protocol

from mailyard.core.errors import InvalidInput, MailyardError
from mailyard.proving.people import HTML, SUBJECT, TEXT, csv_of, person

INBOX_TTL_S = 24 * 3600.0
LABEL = "demo"
READ_INBOXES = 500
READS_AT_ONCE = 2
MAKE_INBOXES = 1_000
STALL_S = 120.0  # nothing has moved for so long: something stands still
LAST_CALL_S = 15.0  # nothing waits anywhere any more: what has not come by then is lost
_LOOK_AGAIN_S = 0.1
_BEHIND_LOOKS = 4  # an inbox is opened so many looks after its mail was said to be sent
RECIPIENTS_MAX = 1_000_000


Csv = Callable[[], AsyncIterator[bytes]]  # a file, from its beginning as often as it is asked for


class DemoFailed(MailyardError):
    """The demonstration could not be run to its end; nothing is said about mail."""

    code = "demo_failed"


@dataclass(frozen=True, slots=True)
class Received:
    """A message as an inbox shows it."""

    inbox: str
    subject: str
    text: str | None
    html: str | None


@dataclass(frozen=True, slots=True)
class ImportState:
    state: str
    read_bytes: int
    size_bytes: int
    imported: int
    rejected: int
    error: str


@dataclass(frozen=True, slots=True)
class CampaignState:
    """`settled`: recipients whose mail was handed over, or given up, or is unknown."""

    state: str
    accepted: int
    unknown: int
    settled: int


class DemoPlatform(Protocol):
    """What the demonstration needs: `over_http.py`, `in_process.py`. Ids are TypeIDs."""

    async def make_inboxes(self, local_parts: Sequence[str], label: str) -> list[tuple[str, str]]:
        """(id, address) of new inboxes with LABEL and `label`, in order."""
        ...

    async def make_list(self, name: str) -> str: ...

    async def begin_import(self, list_id: str, file_name: str, csv: Csv) -> str: ...

    async def import_state(self, import_id: str) -> ImportState: ...

    async def make_template(self, name: str, subject: str, html: str, text: str) -> str: ...

    async def begin_campaign(self, name: str, list_id: str, template_id: str) -> str: ...

    async def campaign_state(self, campaign_id: str) -> CampaignState: ...

    async def inbound_waiting(self) -> int:
        """Received mail that is not in its inboxes yet, as far as one can tell."""
        ...

    async def read_inboxes(self, inbox_ids: Sequence[str]) -> list[Received]: ...

    async def count_mail(self, label: str) -> int:
        """How many messages lie in the inboxes with that label."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """How it ended. The time runs from the campaign's start to the last mail's check."""

    recipients: int
    sent: int
    received: int
    lost: int
    twice: int
    wrong: int
    unknown: int
    seconds: float
    per_second: int
    import_seconds: float

    @property
    def clean(self) -> bool:
        """Whether everything sent came once and says what it must."""
        return (self.lost, self.twice, self.wrong) == (0, 0, 0)

    def as_json(self) -> dict[str, int | float | bool]:
        return {**asdict(self), "clean": self.clean}


@dataclass(frozen=True, slots=True)
class Stage:
    """How far one stage is: `done` of `total`."""

    name: str
    done: int
    total: int


INBOXES = "Making inboxes"
IMPORTING = "Importing contacts"
SENDING = "Sending"
CHECKING = "Opening inboxes"
STAGES = (INBOXES, IMPORTING, SENDING, CHECKING)


class Demo:
    """One run for `recipients` people on `platform`; `run` is its word, unique on the platform."""

    def __init__(
        self,
        platform: DemoPlatform,
        *,
        run: str,
        recipients: int,
        report: Callable[[Stage], None],
        stall_s: float = STALL_S,
    ) -> None:
        if not 1 <= recipients <= RECIPIENTS_MAX:
            raise InvalidInput(
                f"a demonstration has 1 to {RECIPIENTS_MAX:,} recipients", field="recipients"
            )
        self._platform = platform
        self._run = run
        self._label = f"{LABEL}-{run}"
        self._recipients = recipients
        self._report = report
        self._stall_s = stall_s
        self._state = CampaignState("", 0, 0, 0)

    async def run(self) -> Verdict:
        """Everything from the first inbox to the verdict. Raises DemoFailed, Unavailable."""
        inboxes = await self._make_inboxes()
        import_started = perf_counter()
        list_id = await self._import([address for _, address in inboxes])
        import_seconds = perf_counter() - import_started
        template_id = await self._platform.make_template(f"demo {self._run}", SUBJECT, HTML, TEXT)
        started = perf_counter()
        campaign_id = await self._platform.begin_campaign(f"demo {self._run}", list_id, template_id)
        opened = await self._send_and_open(campaign_id, [inbox for inbox, _ in inboxes])
        seconds = perf_counter() - started
        received = len(opened.copies)
        missing = self._recipients - received
        return Verdict(
            recipients=self._recipients,
            sent=self._state.accepted,
            received=received,
            lost=max(0, missing - self._state.unknown),
            twice=opened.mails - received,
            wrong=opened.wrong,
            unknown=self._state.unknown,
            seconds=round(seconds, 3),
            per_second=int(received / seconds),
            import_seconds=round(import_seconds, 3),
        )

    async def _make_inboxes(self) -> list[tuple[str, str]]:
        made: list[tuple[str, str]] = []
        for start in range(0, self._recipients, MAKE_INBOXES):
            numbers = range(start, min(start + MAKE_INBOXES, self._recipients))
            made += await self._platform.make_inboxes(
                [person(self._run, number).local_part for number in numbers], self._label
            )
            self._report(Stage(INBOXES, len(made), self._recipients))
        return made

    async def _import(self, addresses: list[str]) -> str:
        list_id = await self._platform.make_list(f"demo {self._run}")
        import_id = await self._platform.begin_import(
            list_id, f"demo-{self._run}.csv", lambda: csv_of(self._run, addresses)
        )
        watch = _Watch(self._stall_s)
        while True:
            state = await self._platform.import_state(import_id)
            done = self._recipients * state.read_bytes // max(1, state.size_bytes)
            if state.state == "failed":
                raise DemoFailed(f"the import of the contacts failed: {state.error}")
            if state.state == "finished":
                break
            self._report(Stage(IMPORTING, done, self._recipients))
            if watch.stalled(state.read_bytes):
                raise DemoFailed("the import of the contacts stands still: is a worker running?")
            await asyncio.sleep(_LOOK_AGAIN_S)
        if state.imported != self._recipients or state.rejected:
            raise DemoFailed(
                f"of {self._recipients} contacts {state.imported} were imported and "
                f"{state.rejected} rejected"
            )
        self._report(Stage(IMPORTING, self._recipients, self._recipients))
        return list_id

    async def _send_and_open(self, campaign_id: str, inbox_ids: list[str]) -> "_Opened":
        """Follow the campaign and open what it has reached; at the end every inbox was opened."""
        opened = _Opened(self._platform, self._run, inbox_ids)
        sending = asyncio.create_task(self._until_settled(campaign_id))
        try:
            await self._open_along(opened, sending)
            await sending
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await self._open_rest(opened)
        while await self._platform.count_mail(self._label) != opened.mails:
            # Some came after their inbox was opened: which, and what they say, is to be seen.
            before = opened.mails
            opened = _Opened(self._platform, self._run, inbox_ids)
            await self._open_rest(opened)
            if opened.mails == before:
                raise DemoFailed("inboxes show another number of messages than they count")
        return opened

    async def _until_settled(self, campaign_id: str) -> None:
        """Until the campaign has finished and all mail that came in lies in its inboxes."""
        watch = _Watch(self._stall_s)
        while True:
            state = self._state = await self._platform.campaign_state(campaign_id)
            self._report(Stage(SENDING, state.settled, self._recipients))
            if state.state == "finished":
                break
            if state.state == "cancelled":
                raise DemoFailed("somebody cancelled the campaign")
            if watch.stalled(state.settled):
                break
            await asyncio.sleep(_LOOK_AGAIN_S)
        watch = _Watch(self._stall_s)
        while True:
            waiting = await self._platform.inbound_waiting()
            if not waiting or watch.stalled(waiting):
                return
            await asyncio.sleep(_LOOK_AGAIN_S / 2)

    async def _open_along(self, opened: "_Opened", sending: "asyncio.Task[None]") -> None:
        """Open inboxes a little behind the campaign, until it has ended."""
        settled = deque([0] * _BEHIND_LOOKS, maxlen=_BEHIND_LOOKS)
        while not sending.done():
            settled.append(self._state.settled)
            while settled[0] - opened.reached >= READ_INBOXES:
                empty = await opened.open_next(READ_INBOXES)
                opened.again(empty)
                if 2 * len(empty) > READ_INBOXES:
                    break  # it is not where it was thought to be: give it time
            await asyncio.wait((sending,), timeout=_LOOK_AGAIN_S)

    async def _open_rest(self, opened: "_Opened") -> None:
        """Open what was not opened yet; those without mail again, until nothing comes any more."""
        watch = _Watch(min(LAST_CALL_S, self._stall_s))
        while True:
            empty: list[str] = []

            async def open_some(empty: list[str] = empty) -> None:
                while opened.waiting:
                    empty += await opened.open_next(READ_INBOXES)
                    self._report(Stage(CHECKING, len(opened.copies), self._recipients))

            readers = [asyncio.create_task(open_some()) for _ in range(READS_AT_ONCE)]
            try:
                await asyncio.gather(*readers)
            finally:
                for reader in readers:
                    reader.cancel()
            self._report(Stage(CHECKING, len(opened.copies), self._recipients))
            if not empty or watch.stalled(len(empty)):
                return
            opened.again(empty)
            await asyncio.sleep(_LOOK_AGAIN_S)


class _Opened:
    """The inboxes of a run, in the order in which its contacts get their mail, and their mail."""

    def __init__(self, platform: DemoPlatform, run: str, inbox_ids: Sequence[str]) -> None:
        self._platform = platform
        self._run = run
        self._numbers = {inbox: number for number, inbox in enumerate(inbox_ids)}
        self.waiting = deque(inbox_ids)  # not opened, or empty when they were
        self.copies: Counter[str] = Counter()
        self.mails = 0
        self.wrong = 0

    @property
    def reached(self) -> int:
        """How many of the inboxes need no look any more."""
        return len(self._numbers) - len(self.waiting)

    async def open_next(self, count: int) -> list[str]:
        """Open the next `count` inboxes; those that were empty."""
        some = [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]
        for message in await self._platform.read_inboxes(some):
            one = person(self._run, self._numbers[message.inbox])
            self.copies[message.inbox] += 1
            self.mails += 1
            self.wrong += not one.read_alike(message.subject, message.text, message.html)
        return [inbox for inbox in some if inbox not in self.copies]

    def again(self, empty: Sequence[str]) -> None:
        """These are opened again, before all others."""
        self.waiting.extendleft(reversed(empty))


class _Watch:
    """Notices when a figure has stood still for too long."""

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._figure: int | None = None
        self._since = perf_counter()

    def stalled(self, figure: int) -> bool:
        if figure != self._figure:
            self._figure = figure
            self._since = perf_counter()
        return perf_counter() - self._since > self._stall_s
