"""Hostile HTML, sanitised, in a real Chromium: no script, no request, no navigation.

`T tests/corpora/test_hostile_html.py -s` prints how much was run.
"""

from pathlib import Path

from corpora.hostile_html import CHROMIUM, payloads, run, together
from playwright.async_api import async_playwright

from mailyard.mailbox.sanitise import sanitise

LEAST = 3_000
# That the watch sees what it is there for.
ACTING = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<img src=https://sender.invalid/pixel.png>",
    "<meta http-equiv=refresh content='0;url=https://sender.invalid/gone'>",
    "<a href=https://sender.invalid onclick=alert(1)>x</a>",
)


async def test_hostile_html_does_nothing_once_it_is_sanitised(corpora: Path) -> None:
    hostile = payloads(corpora)
    assert len(hostile) >= LEAST
    documents = together([sanitise(payload).html for payload in hostile])
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        seen = await run(browser, ACTING)
        assert seen.scripts
        assert seen.requests
        assert seen.left
        told = await run(browser, documents)
        await browser.close()
    print(
        f"{len(hostile):,} payloads: {len(told.scripts)} scripts, {len(told.requests)} requests, "
        f"{len(told.navigations)} navigations, {len(told.left)} things that could act"
    )
    assert told.all() == []
