"""Hostile HTML of the public lists, and a browser that runs it: what it did is what is told.

Payloads are shown many at once, each in a frame of its own, *without* the sandbox and the policy
that a mail's frame has in the product: what holds here, the sanitiser holds alone.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpora.conftest import files_of
from playwright.async_api import Browser, Route

CHROMIUM = "/usr/bin/chromium"
ORIGIN = "https://reader.invalid/"
FRAMES_PER_PAGE = 40
_PAYLOADS_PER_FRAME = 50
_SETTLE_MS = 150

# In every frame, before anything of it: whatever a payload calls is told to the page around it.
_WATCH = """
(() => {
  const tell = (what) => { try { top.told.push(what + ' in ' + (window.name || 'top')) } catch {} };
  if (window === top) { window.told = []; return; }
  for (const name of ['alert', 'confirm', 'prompt', 'print', 'open', 'eval', 'Function', 'fetch'])
    window[name] = function () { tell('called ' + name); };
  window.addEventListener('error', () => tell('error of a script'));
  document.addEventListener('securitypolicyviolation', () => tell('policy violation'));
})();
"""
_ACTIVE = """
() => {
  const found = [];
  for (const frame of document.querySelectorAll('iframe')) {
    const inside = frame.contentDocument;
    if (!inside) { found.push(frame.name + ' went away'); continue; }
    if (inside.location.href !== 'about:srcdoc') found.push(frame.name + ' is ' + inside.location);
    for (const element of inside.querySelectorAll('*')) {
      const acts = /^(script|iframe|object|embed|form|base|meta|link|style|svg|math)$/i;
      if (acts.test(element.tagName) && inside.body.contains(element))
        found.push(frame.name + ' has ' + element.tagName);
      for (const attribute of element.attributes)
        if (/^on/i.test(attribute.name)) found.push(frame.name + ' has ' + attribute.name);
    }
  }
  return found;
}
"""


def payloads(corpora: Path) -> list[str]:
    """Every line of the XSS lists, every whole file of them, and the sanitisers' vectors."""
    found: dict[str, None] = {}
    for family in ("html-xss", "html-sanitise"):
        for name, data in files_of(corpora / family):
            for text in _of_file(name, data.decode("utf-8", "replace")):
                found[text] = None
    return [text for text in found if text.strip()]


def _of_file(name: str, text: str) -> Iterator[str]:
    if name.endswith("dompurify-expect.json"):
        yield from (case["payload"] for case in json.loads(text))
    elif name.endswith(".test"):
        yield from (case["input"] for case in json.loads(text).get("tests", []) if "input" in case
                    and isinstance(case["input"], str))  # fmt: skip
    elif not name.endswith((".json", ".dat")):
        yield from text.splitlines()
        yield text


@dataclass(slots=True)
class Told:
    """What happened: nothing of it may."""

    scripts: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    navigations: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # what could act, in the document

    def all(self) -> list[str]:
        return [*self.scripts, *self.requests, *self.navigations, *self.left]


def together(fragments: Sequence[str]) -> list[str]:
    """Fragments that are whole in themselves, many in a document: a browser has a frame's price for
    each. None is left out but for those that are another one's letter for letter."""
    apart = list(dict.fromkeys(fragment for fragment in fragments if fragment.strip()))
    return [
        "".join(f"<div>{one}</div>" for one in apart[start : start + _PAYLOADS_PER_FRAME])
        for start in range(0, len(apart), _PAYLOADS_PER_FRAME)
    ]


async def run(browser: Browser, documents: Sequence[str]) -> Told:
    """Show each of `documents` in a frame and wait until nothing more happens."""
    told = Told()
    context = await browser.new_context()
    await context.add_init_script(_WATCH)

    async def answer(route: Route) -> None:
        if route.request.url == ORIGIN:
            await route.fulfill(status=200, content_type="text/html", body="<!doctype html>")
            return
        told.requests.append(route.request.url[:200])
        await route.abort()

    await context.route("**/*", answer)
    page = await context.new_page()

    async def dismiss(dialog: Any) -> None:
        told.scripts.append(f"dialog {dialog.message[:100]}")
        await dialog.dismiss()

    page.on("dialog", dismiss)
    page.on("popup", lambda popup: told.navigations.append(f"popup {popup.url[:100]}"))
    await page.goto(ORIGIN)
    page.on(
        "framenavigated",
        lambda frame: (
            frame.url not in ("about:srcdoc", "about:blank", "")
            and told.navigations.append(frame.url[:200])
        ),
    )
    for start in range(0, len(documents), FRAMES_PER_PAGE):
        some = documents[start : start + FRAMES_PER_PAGE]
        await page.evaluate(
            """(documents) => Promise.all(documents.map((html, number) => new Promise((loaded) => {
                 const frame = document.createElement('iframe');
                 frame.name = 'payload ' + number;
                 frame.onload = loaded;
                 frame.srcdoc = html;
                 document.body.append(frame);
               })))""",
            [f"<!doctype html><html><body>{html}</body></html>" for html in some],
        )
        await page.wait_for_timeout(_SETTLE_MS)
        told.left += await page.evaluate(_ACTIVE)
        told.scripts += await page.evaluate("top.told.splice(0)")
        await page.evaluate("document.body.replaceChildren()")
    await context.close()
    return told
