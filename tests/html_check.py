"""A second opinion on sanitised HTML, by the standard library's parser: what in it could act."""

from html.parser import HTMLParser
from urllib.parse import urlsplit

FORBIDDEN = frozenset((
    "script", "style", "iframe", "frame", "frameset", "object", "embed", "applet", "form", "input",
    "button", "select", "textarea", "option", "svg", "math", "link", "meta", "base", "video",
    "audio", "source", "track", "portal", "template", "noscript", "dialog", "details", "marquee",
))  # fmt: skip
SCHEMES = frozenset(("http", "https", "mailto", "tel"))


class _Check(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in FORBIDDEN:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            self._attribute(tag, name, (value or "").strip())

    def _attribute(self, tag: str, name: str, value: str) -> None:
        shown = f"{tag} {name}={value[:60]!r}"
        if name.startswith("on") or name in ("id", "name", "srcset", "srcdoc", "background"):
            self.found.append(shown)
        elif name in ("href", "cite", "action", "formaction", "data", "poster"):
            if urlsplit(value).scheme.lower() not in SCHEMES:
                self.found.append(shown)
        elif name == "src":
            if not value.lower().startswith(("cid:", "data:image/")) or "svg" in value[:20]:
                self.found.append(shown)
        elif name == "style" and any(
            mark in value.lower().replace(" ", "")
            for mark in ("url(", "expression(", "javascript:", "position:", "@import", "\\")
        ):
            self.found.append(shown)


def active_content(html: str) -> list[str]:
    """Elements and attributes that could run, fetch or navigate; empty when there are none."""
    check = _Check()
    check.feed(html)
    check.close()
    return check.found
