"""From what an author wrote to what is rendered: resolve, compile, inline, make the text part."""

from mailyard.core.errors import InvalidInput
from mailyard.sending.build.piece import Piece, joined, origins
from mailyard.sending.build.resolve import Library, resolve
from mailyard.sending.build.source import BLOCK, EMAIL, Built, Source
from mailyard.sending.build.style import from_mjml, inline
from mailyard.sending.build.text_part import text_of
from mailyard.sending.position import Origin


def build(source: Source, library: Library) -> Built:
    """The three sources to render. Raises InvalidInput with the source and place.

    What needs no building is left to the letter, with no origins.
    """
    if source.html.strip() and source.mjml.strip():
        raise InvalidInput("a template has HTML or MJML, not both", field="mjml")
    part = source.body
    given = source.mjml if part == "mjml" else source.html
    pieces = resolve(given, part, library)
    if source.kind == BLOCK:
        # It stands in other templates, and is compiled there.
        text = resolve(source.text, "text", library)
        return _built(source, pieces if part == "html" else [], text)
    css = ""
    if part == "mjml":
        pieces, css = from_mjml(pieces)
    inlined = source.inline_css is not False
    if css or (inlined and part == "html"):
        try:
            pieces = inline(pieces, part, css)
        except InvalidInput:
            if css or source.inline_css:
                raise
            inlined = False
    if source.text.strip():
        text = resolve(source.text, "text", library)
    elif source.kind == EMAIL:
        text = text_of(pieces, part)
    else:
        text = []
    return _built(source, pieces, text, inlined)


def _built(source: Source, html: list[Piece], text: list[Piece], inlined: bool = True) -> Built:
    made: dict[str, list[Origin]] = {}
    for name, given, pieces in (("html", source.html, html), ("text", source.text, text)):
        if joined(pieces) != given:
            made[name] = origins(pieces)
    return Built(source.subject, joined(html), joined(text), made, inlined)


def unusable_text(error: InvalidInput) -> InvalidInput:
    """The engine did not take the text part that was made here."""
    return InvalidInput(
        f"the text part cannot be made from this HTML, give one: {error.message}", field="text"
    )
