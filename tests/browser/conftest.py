"""A whole platform and a person's browser for the tests of the pages."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect
from running_platform import Platform, running_platform

CHROMIUM = "/usr/bin/chromium"
SCREENSHOTS = Path(__file__).resolve().parents[2] / "test-output" / "screenshots"


@dataclass(slots=True)
class Visitor:
    """A person with a browser: comes by the one-time link once, by their cookie after that."""

    platform: Platform
    browser: Browser
    cookies: dict[str, Any] = field(default_factory=dict)

    async def open(self, **options: Any) -> Page:
        """The overview, signed in. A script error on any page fails the test."""
        url = self.platform.ready["page"]
        context = await self.browser.new_context(
            base_url=url, **(self.cookies and {"storage_state": self.cookies}), **options
        )
        page = await context.new_page()
        page.on("pageerror", lambda error: pytest.fail(f"script error on {page.url}: {error}"))
        if self.cookies:
            await page.goto("/")
        else:
            await page.goto(self.platform.ready["sign_in"])
            await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        self.cookies.update(await context.storage_state())
        return page

    async def shot(self, page: Page, name: str) -> None:
        """Keep a picture of the whole page as test output."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(tmp_path_factory.mktemp("pages") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def cookies() -> dict[str, Any]:
    """What the browser remembers from test to test."""
    return {}


@pytest.fixture
async def visitor(platform: Platform, cookies: dict[str, Any]) -> AsyncIterator[Visitor]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield Visitor(platform, browser, cookies)
        await browser.close()
