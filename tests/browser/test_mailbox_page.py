"""A person and their mailbox in a browser: threads, a draft in two windows, a send with undo."""

import smtplib
from email.message import EmailMessage

import pytest
from browser.conftest import Visitor
from playwright.async_api import Page, expect

pytestmark = pytest.mark.timeout(240)


async def _make_inbox(page: Page, name: str) -> str:
    await page.goto("/inboxes")
    await page.locator("#address").fill(name)
    await page.get_by_role("button", name="Make inbox").click()
    await expect(page.get_by_text("No mail here")).to_be_visible()
    return await page.get_by_role("heading", level=1).inner_text()


def _send(visitor: Visitor, to: str, subject: str, own: str, references: str = "") -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Bob <bob@elsewhere.example>", to, subject
    mail["Message-ID"] = f"<{own}@elsewhere.example>"
    if references:
        mail["References"] = f"<{references}@elsewhere.example>"
    mail.set_content(f"What {own} says.")
    with smtplib.SMTP("127.0.0.1", visitor.platform.smtp_port) as smtp:
        smtp.send_message(mail)


async def test_a_person_reads_threads_and_searches_and_new_mail_comes_by_itself(
    visitor: Visitor,
) -> None:
    page = await visitor.open(viewport={"width": 1280, "height": 900})
    address = await _make_inbox(page, "threads-page")
    _send(visitor, address, "Plans for Monday", "first")
    await expect(page.get_by_role("link", name="Plans for Monday")).to_be_visible(timeout=15_000)
    _send(visitor, address, "Re: Plans for Monday", "second", "first")
    row = page.locator("table.mails tbody tr")
    await expect(row.get_by_text("2", exact=True)).to_be_visible(timeout=15_000)
    await expect(row).to_have_count(1)
    _send(visitor, address, "Something else", "third")
    await expect(row).to_have_count(2, timeout=15_000)
    await visitor.shot(page, "mailbox")

    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Plans for Monday")
    await expect(page.locator("pre").get_by_text("What second says.")).to_be_visible()
    await expect(page.locator("pre").get_by_text("What first says.")).to_be_visible()
    await visitor.shot(page, "thread")
    await page.keyboard.press("e")
    await expect(row).to_have_count(1)
    await page.keyboard.press("z")
    await expect(row).to_have_count(2)
    await expect(page.locator("tr.unseen")).to_have_count(1)  # the other was read

    await page.get_by_role("searchbox").fill("subject:something from:bob")
    await page.get_by_role("button", name="Search").click()
    await expect(page.get_by_role("link", name="Something else")).to_be_visible()
    await expect(page.get_by_role("link", name="Plans for Monday")).to_have_count(0)


async def test_a_draft_in_two_windows_keeps_both_and_is_sent_with_time_to_undo(
    visitor: Visitor,
) -> None:
    page = await visitor.open()
    await _make_inbox(page, "answers-page")
    heard = await page.get_by_role("heading", level=1).inner_text()
    address = await _make_inbox(page, "writes-page")
    _send(visitor, address, "A question", "question")
    await page.get_by_role("link", name="A question").click(timeout=15_000)
    await page.get_by_role("button", name="Reply", exact=True).click()
    await expect(page.get_by_label("To")).to_have_value("Bob <bob@elsewhere.example>")
    draft = page.url
    other = await page.context.new_page()
    await other.goto(draft)
    await page.get_by_label("Text").fill("from the first window")
    await expect(page.locator("#saved")).to_have_text("Saved")
    await other.get_by_label("Text").fill("from the second window")
    await expect(other.locator("#conflict")).to_be_visible()
    assert other.url != draft, "the second window's version is a draft of its own"
    await visitor.shot(other, "draft-conflict")
    await other.get_by_role("link", name="the other one").click()
    await expect(other.get_by_label("Text")).to_have_value("from the first window")
    await page.goto(draft.rsplit("/", 1)[0])
    await expect(page.locator("tbody a.row")).to_have_count(2)

    await other.get_by_label("To").fill(heard)
    await other.get_by_label("Subject").fill("Sent with a way back")
    await other.get_by_role("button", name="Send").click()
    await expect(other.get_by_text("Your mail leaves")).to_be_visible()
    await other.get_by_role("button", name="Undo").click()
    await expect(other.get_by_label("Subject")).to_have_value("Sent with a way back")
    await other.get_by_role("button", name="Send").click()
    await expect(other.get_by_text("Your mail leaves")).to_be_visible()
    await page.goto("/inboxes?address=" + heard)
    await page.locator("tbody a.row").first.click()
    await expect(page.get_by_role("link", name="Sent with a way back")).to_be_visible(
        timeout=30_000
    )
    await other.get_by_role("link", name="Sent", exact=True).click()
    await other.get_by_role("link", name="Sent with a way back").click()
    await expect(other.locator("details.mail-item")).to_have_count(2)  # it is in the thread
    await expect(other.locator("pre").get_by_text("from the first window")).to_be_visible()


async def test_a_mailbox_fits_a_phone(visitor: Visitor) -> None:
    page = await visitor.open(viewport={"width": 390, "height": 844})
    address = await _make_inbox(page, "phone-page")
    _send(visitor, address, "A subject that is so long that it never fits on a phone " * 3, "long")
    await page.locator("tbody a.row").first.wait_for(timeout=15_000)
    paths = [page.url]
    await page.locator("tbody a.row").first.click()
    await expect(page.locator("pre").get_by_text("What long says.")).to_be_visible()
    paths.append(page.url)
    await page.get_by_role("button", name="Reply", exact=True).click()
    await expect(page.get_by_label("Text")).to_be_visible()
    paths.append(page.url)
    for path in paths:
        await page.goto(path)
        wider = await page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wider <= 0, f"{path} is {wider} px wider than a phone"
    await visitor.shot(page, "mailbox-phone")
