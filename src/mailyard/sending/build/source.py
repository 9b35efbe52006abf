"""What comes into a build and what comes out: plain values, which travel to another process."""

import re

import msgspec

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.sending.position import Origin

EMAIL = "email"
LAYOUT = "layout"
BLOCK = "block"
KINDS = (EMAIL, LAYOUT, BLOCK)


REFERENCE = re.compile(
    r"""\{%[-+]?\s*(extends|include)\s+(?:"([^"{}%]+)"|'([^'{}%]+)')\s*[-+]?%\}"""
)


class Part(msgspec.Struct, frozen=True):
    """Another template of the workspace, as `extends` and `include` take it."""

    kind: str
    html: str
    mjml: str
    text: str

    def source(self, part: str) -> str | None:
        """What stands in a source of the part `html`, `mjml` or `text`; None when it has none.

        MJML takes HTML too, for it stands inside `mj-text` and `mj-raw`.
        """
        if part == "mjml":
            return self.mjml or self.html or None
        return (self.html if part == "html" else self.text) or None


class Source(msgspec.Struct, frozen=True):
    """What an author wrote. The body is `html` or `mjml`; without `text` it is made from that.

    `inline_css` None: style sheets are inlined where nothing forbids it.
    """

    subject: str = ""
    html: str = ""
    mjml: str = ""
    text: str = ""
    kind: str = EMAIL
    inline_css: bool | None = None

    @property
    def body(self) -> str:
        """The field that the body stands in."""
        return "mjml" if self.mjml.strip() else "html"


class Built(msgspec.Struct, frozen=True):
    """What is rendered for each recipient. `origins`: of the sources that differ from the given.
    `inline_css`: whether style sheets were to be inlined, and could be."""

    subject: str = ""
    html: str = ""
    text: str = ""
    origins: dict[str, list[Origin]] = {}
    inline_css: bool = True


def names_in(one: Source | Part) -> set[str]:
    """The names of the layouts and blocks that the sources ask for, as far as they can be read."""
    return {
        found[2] or found[3]
        for text in (one.html, one.mjml, one.text)
        for found in REFERENCE.finditer(text)
    }


def check_characters(source: Source) -> None:
    """Raises InvalidInput for what no text column takes, and for a source that is too long."""
    for field in ("subject", "html", "mjml", "text"):
        text: str = getattr(source, field)
        if "\0" in text:
            raise InvalidInput("NUL is not allowed here", field=field)
        if len(text) > limits.TEMPLATE_SOURCE_BYTES:
            raise InvalidInput(f"larger than {limits.TEMPLATE_SOURCE_BYTES} bytes", field=field)
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise InvalidInput("not valid Unicode", field=field) from None


def check_source(source: Source) -> None:
    """Raises InvalidInput for a source that cannot be published, whatever stands in it."""
    check_characters(source)
    if source.html.strip() and source.mjml.strip():
        raise InvalidInput("a template has HTML or MJML, not both", field="mjml")
    if source.kind == EMAIL and not source.subject.strip():
        raise InvalidInput("a subject is needed", field="subject")
    if source.kind != EMAIL and source.subject.strip():
        raise InvalidInput(f"a {source.kind} has no subject", field="subject")
    if not (source.html.strip() or source.mjml.strip() or source.text.strip()):
        raise InvalidInput("HTML, MJML or text is needed", field="html")
