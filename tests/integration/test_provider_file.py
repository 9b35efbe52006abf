"""The transport of development: mails as files."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest
from smtp_wire import until

from mailyard.core import ids
from mailyard.protocol.mime import parse
from mailyard.sending.transport import Handoff, Outcome, Outgoing, Recipient
from mailyard.sending.transports.file import FileTransport

CONTENT = b"From: a@s.example\r\nSubject: Hello\r\n\r\nHi.\r\n"


def mail(*delivery_ids: UUID, content: bytes = CONTENT) -> Outgoing:
    recipients = tuple(Recipient(one, f"{n}@x.example") for n, one in enumerate(delivery_ids))
    return Outgoing("b@s.example", recipients, content, False, False)


async def write(folder: Path, *mails: Outgoing) -> list[Handoff]:
    transport = FileTransport(name="file", folder=folder)
    answers: list[Handoff] = []
    for one in mails:
        transport.submit(one, answers.append)
    assert not answers
    await until(lambda: len(answers) == sum(len(one.recipients) for one in mails))
    await transport.close(1)
    return answers


async def test_every_recipient_has_a_file_that_reads_as_a_mail(tmp_path: Path) -> None:
    one, two = ids.uuid7(), ids.uuid7()
    answers = await write(tmp_path / "new" / "mail", mail(one, two))
    assert {answer.outcome for answer in answers} == {Outcome.ACCEPTED}
    path = tmp_path / "new" / "mail" / f"{ids.type_id(ids.DELIVERY, two)}.eml"
    assert path.read_bytes().endswith(CONTENT)
    message = parse(path.read_bytes())
    assert message.subject == "Hello"
    assert (message.header("Return-Path"), message.header("Delivered-To")) == (
        "<b@s.example>",
        "1@x.example",
    )
    assert answers[1].reply == f"id={path.name}"


async def test_a_mail_that_is_handed_over_again_overwrites_itself(tmp_path: Path) -> None:
    one = ids.uuid7()
    await write(tmp_path, mail(one))
    await write(tmp_path, mail(one, content=CONTENT.replace(b"Hi.", b"Hi again.")))
    (path,) = tmp_path.iterdir()
    assert b"Hi again." in path.read_bytes()


async def test_many_are_written_and_nothing_half_done_is_left(tmp_path: Path) -> None:
    await write(tmp_path, *(mail(ids.uuid7()) for _ in range(450)))
    files = list(tmp_path.iterdir())
    assert len(files) == 450
    assert all(path.suffix == ".eml" for path in files)


async def test_a_folder_that_cannot_be_written_fails_nobody_for_good(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (answer,) = await write(tmp_path / "file", mail(ids.uuid7()))
    assert (answer.outcome, answer.route_fault) == (Outcome.LATER, True)
    assert str(tmp_path / "file") in answer.reply


@pytest.mark.parametrize("drain_s", [0.0, 5.0])
async def test_closing_answers_everybody_with_the_truth(tmp_path: Path, drain_s: float) -> None:
    transport = FileTransport(name="file", folder=tmp_path)
    answers: list[Handoff] = []
    for _ in range(450):
        transport.submit(mail(ids.uuid7()), answers.append)
    await asyncio.sleep(0)
    await transport.close(drain_s)
    taken = [answer for answer in answers if answer.outcome is Outcome.ACCEPTED]
    assert len(answers) == 450
    assert {answer.reply.removeprefix("id=") for answer in taken} == {
        path.name for path in tmp_path.iterdir()
    }
