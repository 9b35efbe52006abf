"""A whole mailbox out as a file and in again: what came is what goes, and nothing twice."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from mail_platform import MailPlatform, about, mail_platform

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, NotFound
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox_value import Inbox, NewInbox
from mailyard.mailbox.mail_file import EML, MBOX, TAR, UNKNOWN, Format, Imported, MailFiles
from mailyard.protocol.tar import END, tar_entry
from mailyard.storage.database import Connection, Database

ODD = (
    b"Message-ID: <odd@x.example>\r\nSubject: odd\r\n\r\nFrom here 12:30\r\n>From there\r\n\r\nend"
)
MAILS = 40


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[MailPlatform]:
    async with mail_platform(database) as platform:
        yield platform


@pytest.fixture
def files(platform: MailPlatform) -> MailFiles:
    return MailFiles(database=platform.database, inboxes=platform.inboxes, engine=platform.engine)


@pytest.fixture
async def boxes(platform: MailPlatform, workspace_id: UUID) -> tuple[Inbox, Inbox]:
    wanted = [NewInbox("ada", ttl_s=3600), NewInbox("eva")]
    ada, eva = await platform.inboxes.create(workspace_id, wanted)
    for number in range(MAILS):
        await platform.send(
            "ada@inbox.test", content=b"Message-ID: <%d@x>\r\n" % number + about(f"no {number}")
        )
    await platform.deliver("ada@inbox.test", content=ODD)
    return ada, eva


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def quiet(_: Connection) -> None:
    """No audit here."""


async def whole(files: MailFiles, whose: UUID, inbox: Inbox, form: Format) -> bytes:
    return b"".join([piece async for piece in await files.export(whose, inbox.id, form)])


async def brought(
    files: MailFiles, whose: UUID, inbox: Inbox, content: bytes, kind: str, step: int = 1_000
) -> Imported:
    cut = [content[at : at + step] for at in range(0, len(content), step)]
    return await files.bring_in(whose, inbox.id, pieces(*cut), kind, quiet)


async def contents(platform: MailPlatform, whose: UUID, inbox: Inbox) -> list[bytes]:
    lines = (await platform.messages.list(whose, inbox.id, limit=500)).items
    return [await platform.messages.raw(whose, line.id) for line in reversed(lines)]


@pytest.mark.parametrize(("form", "kind"), [("mbox", MBOX), ("mbox", UNKNOWN), ("eml", TAR)])
async def test_a_mailbox_goes_out_and_in_again_byte_for_byte(
    platform: MailPlatform,
    files: MailFiles,
    workspace_id: UUID,
    boxes: tuple[Inbox, Inbox],
    form: Format,
    kind: str,
) -> None:
    ada, eva = boxes
    content = await whole(files, workspace_id, ada, form)
    told = await brought(files, workspace_id, eva, content, kind)
    assert (told.imported, told.already_there, told.refused) == (MAILS + 1, 0, 0)
    await platform.run(await platform.lease())
    ours, theirs = [await contents(platform, workspace_id, inbox) for inbox in boxes]
    if form == "mbox":  # where each mail ends with its line
        ours = [raw if raw.endswith(b"\r\n") else raw + b"\r\n" for raw in ours]
    assert theirs == ours

    again = await brought(files, workspace_id, eva, content, kind)
    assert (again.imported, again.already_there) == (0, MAILS + 1)
    assert await whole(files, workspace_id, eva, form)


async def test_large_mailboxes_are_read_and_written_a_part_at_a_time(
    platform: MailPlatform,
    files: MailFiles,
    workspace_id: UUID,
    boxes: tuple[Inbox, Inbox],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mailyard.mailbox.mail_file._LINES_PER_PAGE", 7)
    monkeypatch.setattr("mailyard.mailbox.mail_file._BATCH_BYTES", 300)
    monkeypatch.setattr("mailyard.mailbox.mail_file._BATCH_MAILS", 3)
    ada, eva = boxes
    content = await whole(files, workspace_id, ada, "eml")
    assert (await brought(files, workspace_id, eva, content, UNKNOWN, 100)).imported == MAILS + 1
    await platform.run(await platform.lease())
    assert await contents(platform, workspace_id, eva) == await contents(
        platform, workspace_id, ada
    )


async def test_what_is_no_mail_is_told_of_and_holds_up_no_other(
    files: MailFiles,
    workspace_id: UUID,
    boxes: tuple[Inbox, Inbox],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SMTP_MESSAGE_BYTES", 2_000)
    archive = b"".join(
        tar_entry(name, content, 0)
        for name, content in (
            ("a.eml", about("one")), ("b.txt", b"no mail"), ("c.eml", b"X: " + b"y" * 3_000),
            ("../../d.eml", about("two")),
        )
    )  # fmt: skip
    told = await brought(files, workspace_id, boxes[1], archive + END, TAR)
    assert (told.imported, told.refused) == (2, 2)
    assert sorted(refusal.number for refusal in told.refusals) == [2, 3]
    whose, eva = workspace_id, boxes[1]
    for content, kind in ((b"no mailbox at all", MBOX), (archive[:-100], TAR), (b"x" * 600, TAR)):
        with pytest.raises(InvalidInput):
            await brought(files, whose, eva, content, kind)
    assert (await brought(files, whose, eva, b"", EML)).imported == 0
    for stranger in (uuid7(), whose):
        inbox_id = eva.id if stranger != whose else uuid7()
        with pytest.raises(NotFound):
            await files.export(stranger, inbox_id, "mbox")
        with pytest.raises(NotFound):
            await files.bring_in(stranger, inbox_id, pieces(b""), MBOX, quiet)
