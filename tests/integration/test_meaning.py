"""What a mail means, from the mail that came in to the answer that a test suite reads."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import msgspec
import pytest
from mail_platform import MailPlatform, mail_platform

from mailyard.analysis.meaning import Meanings
from mailyard.core.errors import NotFound
from mailyard.core.ids import uuid7
from mailyard.mailbox.inbox import NewInbox
from mailyard.protocol.meaning import read
from mailyard.storage.database import Database
from mailyard.web.api.messages import detail_of

CODE_MAIL = (
    b"From: Example <no-reply@example.org>\r\nTo: ada@inbox.test\r\nSubject: Sign in to Example\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\n"
    b"Enter this code to sign in:\r\n\r\n  482 913\r\n\r\nOr use this link:\r\n"
    b"https://example.org/auth/magic?token=9fJ2kLmQ8rT4vX1z\r\n"
)


@pytest.fixture
async def mails(database: Database) -> AsyncIterator[MailPlatform]:
    async with mail_platform(database) as platform:
        yield platform


async def test_what_is_read_carries_its_codes_and_links_and_is_kept(
    mails: MailPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace_id = uuid7()
    [inbox] = await mails.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    message_id = await mails.deliver("ada@inbox.test", content=CODE_MAIL)
    meanings = Meanings(database=mails.database)
    message = await mails.messages.read(workspace_id, message_id, inbox.id)
    app = SimpleNamespace(meanings=meanings)

    async def answer() -> dict[str, object]:
        detail = await detail_of(app, workspace_id, message)  # type: ignore[arg-type]
        return msgspec.to_builtins(detail)["meaning"]  # type: ignore[no-any-return]

    first = await answer()
    assert [one["value"] for one in first["codes"]] == ["482913"]  # type: ignore[index]
    assert [one["purpose"] for one in first["links"]] == ["sign_in"]  # type: ignore[index]
    seen = first["codes"][0]["evidence"][0]  # type: ignore[index]
    assert message.content.text is not None
    assert message.content.text[seen["start"] : seen["end"]] == "482 913"

    # The second time nobody reads the mail: it is kept …
    def unread(raw: bytes) -> None:
        raise AssertionError("the mail is read again")

    monkeypatch.setattr("mailyard.analysis.meaning.findings_of", unread)
    assert await answer() == first
    # … until a rule changes.
    monkeypatch.setattr("mailyard.analysis.meaning.RULES_VERSION", read.RULES_VERSION + 1)
    with pytest.raises(AssertionError, match="read again"):
        await answer()


async def test_another_workspace_is_told_nothing_and_a_deleted_mail_leaves_nothing(
    mails: MailPlatform,
) -> None:
    workspace_id = uuid7()
    await mails.inboxes.create(workspace_id, [NewInbox("ada", ttl_s=3600)])
    message_id = await mails.deliver("ada@inbox.test", content=CODE_MAIL)
    meanings = Meanings(database=mails.database)
    assert (await meanings.of(workspace_id, message_id)).codes
    with pytest.raises(NotFound):
        await meanings.of(uuid7(), message_id)
