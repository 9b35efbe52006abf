"""The verdict says what happened: checked against platforms that lose, repeat and garble mail."""

from collections.abc import Sequence
from typing import Any

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.proving.demonstration import (
    CHECKING,
    CampaignState,
    Csv,
    Demo,
    DemoFailed,
    ImportState,
    Received,
    Stage,
    Verdict,
)
from mailyard.proving.people import HTML, SUBJECT, TEXT, csv_of, person


class Platform:
    """Delivers the campaign as told: `copies` of each number's mail, some of them `garbled`."""

    def __init__(
        self,
        copies: dict[int, int] | None = None,
        garbled: dict[int, Received] | None = None,
        unknown: int = 0,
        rejected: int = 0,
        late: int = 0,
        looks: int = 1,
    ) -> None:
        self.copies = copies or {}
        self.garbled = garbled or {}
        self.unknown = unknown
        self.rejected = rejected
        self.late = late
        self.looks = looks  # after so many the campaign has finished
        self.looked = 0
        self.opened: list[list[str]] = []
        self.opened_while_sending = 0
        self.labels: set[str] = set()
        self.addresses: list[str] = []
        self.csv = b""

    async def make_inboxes(self, local_parts: Sequence[str], label: str) -> list[tuple[str, str]]:
        self.labels.add(label)
        start = len(self.addresses)
        self.addresses += [f"{local_part}@inbox.test" for local_part in local_parts]
        return [
            (f"ibx{number}", self.addresses[number]) for number in range(start, len(self.addresses))
        ]

    async def make_list(self, name: str) -> str:
        return "lst"

    async def begin_import(self, list_id: str, file_name: str, csv: Csv) -> str:
        self.csv = b"".join([chunk async for chunk in csv()])
        return "imp"

    async def import_state(self, import_id: str) -> ImportState:
        count = len(self.addresses)
        return ImportState("finished", 1, 1, count - self.rejected, self.rejected, "")

    async def make_template(self, name: str, subject: str, html: str, text: str) -> str:
        assert (subject, html, text) == (SUBJECT, HTML, TEXT)
        return "tpl"

    async def begin_campaign(self, name: str, list_id: str, template_id: str) -> str:
        return "cmp"

    async def campaign_state(self, campaign_id: str) -> CampaignState:
        self.looked += 1
        count = len(self.addresses)
        if self.looked < self.looks:
            sent = count * self.looked // self.looks
            return CampaignState("running", sent, 0, sent)
        return CampaignState("finished", count - self.unknown, self.unknown, count)

    async def inbound_waiting(self) -> int:
        return 0

    async def read_inboxes(self, inbox_ids: Sequence[str]) -> list[Received]:
        self.opened.append(list(inbox_ids))
        self.opened_while_sending += self.looked < self.looks
        if self.late:
            self.late -= 1
            return []
        found: list[Received] = []
        for inbox in inbox_ids:
            number = int(inbox.removeprefix("ibx"))
            good = mail_of(number, inbox)
            found += [self.garbled.get(number, good)] * self.copies.get(number, 1)
        return found

    async def count_mail(self, label: str) -> int:
        assert self.labels == {label}
        return sum(self.copies.get(number, 1) for number in range(len(self.addresses)))


class SecondThoughts(Platform):
    """Delivers `afterwards` once every inbox was opened."""

    def __init__(self, afterwards: dict[int, int], **how: Any) -> None:
        super().__init__(**how)
        self.afterwards = afterwards

    async def count_mail(self, label: str) -> int:
        self.copies.update(self.afterwards)
        return await super().count_mail(label)


def mail_of(number: int, inbox: str) -> Received:
    one = person("run", number)
    html = "<html><body>" + "\n".join(one.html_marks) + "</body></html>"
    return Received(inbox, one.subject, one.text.replace("\n", "\r\n"), html)


async def verdict_of(platform: Platform, recipients: int = 1200) -> Verdict:
    demo = Demo(platform, run="run", recipients=recipients, report=lambda stage: None, stall_s=0.3)
    return await demo.run()


async def test_all_is_well_when_each_mail_came_once_and_says_what_it_must() -> None:
    verdict = await verdict_of(Platform())
    assert verdict.clean
    assert (verdict.sent, verdict.received) == (1200, 1200)
    assert (verdict.lost, verdict.twice, verdict.wrong, verdict.unknown) == (0, 0, 0, 0)


async def test_a_mail_that_never_came_is_lost() -> None:
    verdict = await verdict_of(Platform(copies={7: 0, 900: 0}))
    assert (verdict.received, verdict.lost, verdict.clean) == (1198, 2, False)


async def test_a_second_copy_is_seen() -> None:
    verdict = await verdict_of(Platform(copies={7: 3}))
    assert (verdict.received, verdict.twice, verdict.clean) == (1200, 2, False)


async def test_a_second_copy_that_comes_after_its_inbox_was_opened_is_seen() -> None:
    verdict = await verdict_of(SecondThoughts({7: 2, 1100: 2}))
    assert (verdict.received, verdict.twice, verdict.lost) == (1200, 2, 0)


async def test_a_second_copy_is_read_as_the_first_one_was() -> None:
    other = mail_of(4, "ibx4")
    platform = SecondThoughts({4: 2})
    platform.garbled = {4: Received("ibx4", other.subject, other.text, "<p>else</p>")}
    verdict = await verdict_of(platform)
    assert (verdict.twice, verdict.wrong) == (1, 2)


async def test_a_mail_that_comes_after_the_last_call_is_not_lost() -> None:
    verdict = await verdict_of(SecondThoughts({9: 1}, copies={9: 0}))
    assert (verdict.received, verdict.lost, verdict.twice) == (1200, 0, 0)


async def test_inboxes_are_opened_while_the_campaign_runs_and_each_of_them_once() -> None:
    platform = Platform(looks=12)
    verdict = await verdict_of(platform, 3000)
    assert verdict.clean
    assert platform.opened_while_sending
    opened = [inbox for some in platform.opened for inbox in some]
    assert len(opened) == len(set(opened)) == 3000


async def test_an_inbox_that_was_opened_too_early_is_opened_again() -> None:
    verdict = await verdict_of(Platform(looks=12, late=2), 3000)
    assert (verdict.received, verdict.twice, verdict.clean) == (3000, 0, True)


async def test_a_missing_mail_of_an_unknown_recipient_is_not_lost() -> None:
    verdict = await verdict_of(Platform(copies={7: 0}, unknown=2))
    assert (verdict.lost, verdict.unknown, verdict.clean) == (0, 2, True)


@pytest.mark.parametrize("part", ["subject", "text", "html", "neighbour", "no html"])
async def test_wrong_content_is_seen_in_every_part(part: str) -> None:
    good = mail_of(3, "ibx3")
    garbled = {
        "subject": Received("ibx3", good.subject + " ", good.text, good.html),
        "text": Received("ibx3", good.subject, (good.text or "").replace("seat", "set"), good.html),
        "html": Received(
            "ibx3", good.subject, good.text, (good.html or "").replace("<b>4", "<b>5")
        ),
        "neighbour": Received("ibx3", *_content(mail_of(4, "ibx4"))),
        "no html": Received("ibx3", good.subject, good.text, None),
    }[part]
    verdict = await verdict_of(Platform(garbled={3: garbled}))
    assert (verdict.wrong, verdict.lost, verdict.clean) == (1, 0, False)


def _content(mail: Received) -> tuple[str, str | None, str | None]:
    return mail.subject, mail.text, mail.html


async def test_mail_that_comes_late_is_waited_for() -> None:
    verdict = await verdict_of(Platform(late=3))
    assert verdict.clean


async def test_an_import_that_rejects_contacts_ends_the_demonstration() -> None:
    with pytest.raises(DemoFailed, match="1 rejected"):
        await verdict_of(Platform(rejected=1))


async def test_the_number_of_recipients_is_bounded() -> None:
    for recipients in (0, 1_000_001):
        with pytest.raises(InvalidInput):
            await verdict_of(Platform(), recipients)


async def test_stages_are_reported_up_to_their_end() -> None:
    stages: list[Stage] = []
    demo = Demo(Platform(), run="run", recipients=600, report=stages.append, stall_s=1.0)
    await demo.run()
    assert stages[-1] == Stage(CHECKING, 600, 600)
    assert len({stage.name for stage in stages}) == 4


async def test_the_contacts_file_holds_every_person_once() -> None:
    addresses = [f"{person('run', number).local_part}@x.test" for number in range(3000)]
    data = b"".join([chunk async for chunk in csv_of("run", addresses)])
    lines = data.decode("utf-8-sig").split("\r\n")
    assert lines[0].split(";")[1] == "E-Mail"
    assert [line.split(";")[1] for line in lines[1:-1]] == addresses
