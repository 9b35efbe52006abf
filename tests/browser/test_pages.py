"""A person in a browser: signs in by the one-time link, runs the demo by its button, reads a mail.

Runs a whole platform (`mailyard up` on free ports) and headless Chromium. Screenshots are kept in
`test-output/screenshots/`.
"""

from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from services.platform import Platform

SCREENSHOTS = Path(__file__).resolve().parents[2] / "test-output" / "screenshots"
RECIPIENTS = "1000"

pytestmark = pytest.mark.timeout(300)


async def _shot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


async def _signed_in(browser: Browser, platform: Platform, **options: object) -> Page:
    context = await browser.new_context(base_url=platform.url, **options)  # type: ignore[arg-type]
    page = await context.new_page()
    page.errors = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.errors.append(str(error)))  # type: ignore[attr-defined]
    await page.goto(platform.sign_in_link())
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    return page


async def test_a_person_runs_the_demo_by_its_button_and_reads_a_mail(platform: Platform) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = await _signed_in(browser, platform, viewport={"width": 1280, "height": 900})
        await page.select_option("#recipients", RECIPIENTS)
        await page.click("#run-demo")
        await expect(page.locator("#verdict")).to_be_visible(timeout=120_000)
        verdict = await page.locator("#verdict").inner_text()
        await _shot(page, "overview")
        assert await _figure(page, "Received") == 1000, verdict
        assert await _figure(page, "Lost") == 0, verdict
        assert await _figure(page, "Twice") == 0, verdict

        await page.get_by_role("link", name="Inboxes").click()
        await page.locator("tbody a.row").first.click()
        await page.locator("tbody a.row").first.click()
        frame = page.frame_locator("iframe.mail")
        await expect(frame.locator("body")).not_to_be_empty()
        await _shot(page, "mail")

        for name in ("Campaigns", "Deliveries", "Templates", "Contacts", "Imports"):
            await page.get_by_role("link", name=name, exact=True).first.click()
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            await _shot(page, name.lower())
        assert page.errors == []  # type: ignore[attr-defined]
        await browser.close()


async def test_the_pages_work_at_phone_width_in_the_dark_and_by_keyboard(
    platform: Platform,
) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = await _signed_in(
            browser, platform, viewport={"width": 390, "height": 844}, color_scheme="dark"
        )
        for path in ("/", "/inboxes", "/campaigns", "/deliveries", "/access", "/audit"):
            await page.goto(path)
            overflow = await page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert overflow <= 0, f"{path} is {overflow} px wider than a phone"
        await page.goto("/inboxes")
        await _shot(page, "inboxes-phone-dark")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.className") == "skip"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await browser.close()


async def test_new_mail_appears_without_reload(platform: Platform) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        page = await _signed_in(browser, platform)
        await page.goto("/inboxes")
        await page.fill("#address", "live-page")
        await page.get_by_role("button", name="Make inbox").click()
        await expect(page.get_by_text("No mail here")).to_be_visible()
        address = await page.get_by_role("heading", level=1).inner_text()
        await platform.send_by_smtp(address, subject="It came by itself")
        await expect(page.get_by_role("link", name="It came by itself")).to_be_visible(
            timeout=15_000
        )
        await browser.close()


async def _figure(page: Page, label: str) -> int:
    stat = page.locator("#verdict .stat").filter(has=page.get_by_text(label, exact=True))
    text = await stat.locator(".value").inner_text()
    return int("".join(character for character in text if character.isdigit()))
