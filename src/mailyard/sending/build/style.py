"""MJML becomes HTML, and the rules of style sheets move into the elements that they are for.

Nothing is read and nothing fetched: `mj-include` is refused, style sheets of links are left alone,
and the process has no file descriptor to open anything with (`sending/proof.py`).
"""

import re
from itertools import pairwise

import css_inline
import mjml

from mailyard.core.errors import InvalidInput
from mailyard.sending.build.balance import check
from mailyard.sending.build.implied import check_same, implied
from mailyard.sending.build.markup import TEXT_ONLY, Markup, Node
from mailyard.sending.build.mask import Mask
from mailyard.sending.build.piece import Piece

_EMPTY_STYLE = re.compile(r"<style[^>]*>\s*</style>", re.IGNORECASE)
_STYLE = re.compile(r"<style\b", re.IGNORECASE)
_IGNORED = ' data-css-inline="ignore"'
_POSITION = re.compile(r" (?:in root template )?at position (\d+):(\d+)")
_HEAD = frozenset((
    "mj-head", "mj-attributes", "mj-breakpoint", "mj-font", "mj-html-attributes", "mj-preview",
    "mj-style", "mj-title", "mj-all", "mj-class", "mj-selector", "mj-html-attribute",
))  # fmt: skip
_BODY = frozenset((
    "mjml", "mj-body", "mj-accordion", "mj-accordion-element", "mj-accordion-text",
    "mj-accordion-title", "mj-button", "mj-carousel", "mj-carousel-image", "mj-column",
    "mj-divider", "mj-group", "mj-hero", "mj-image", "mj-navbar", "mj-navbar-link", "mj-raw",
    "mj-section", "mj-social", "mj-social-element", "mj-spacer", "mj-table", "mj-text",
    "mj-wrapper",
))  # fmt: skip


def from_mjml(pieces: list[Piece]) -> tuple[list[Piece], str]:
    """The HTML of a template in MJML, and the CSS that it wants in its elements.

    Raises InvalidInput with the place.
    """
    markup = Markup(pieces, "mjml")
    nodes = markup.nodes()
    _check_elements(markup, nodes)
    check(markup, nodes, strict=True)
    css = _take_inline_css(markup, nodes)
    mask = Mask(markup)
    masked = mask.put_on(_words(markup, nodes))
    try:
        html = mjml.mjml2html(masked, fonts={})  # no font of elsewhere unless mj-font names it
    except ValueError as error:
        raise _explained(markup, mask, masked, str(error)) from None
    needed = [index for index, tag in enumerate(markup.tags) if tag.word != "{#"]
    return mask.take_off(_EMPTY_STYLE.sub("", html), needed), css


def inline(pieces: list[Piece], field: str, css: str = "") -> list[Piece]:
    """The same HTML with its style sheets' rules in its elements; rules that cannot be there (media
    queries, `:hover`) stay. `css`: more rules, which come from outside of the HTML.

    Without a style sheet nothing is touched. Raises InvalidInput with the place.
    """
    markup = Markup(pieces, field)
    nodes = markup.nodes()
    sheets = [node for node in nodes if node.kind == "raw" and node.name == "style"]
    if not css and not any(markup.text[node.begin : node.stop].strip() for node in sheets):
        return pieces
    check(markup, nodes, strict=False)
    for node in sheets:
        for index in markup.tags_in(node.begin, node.stop):
            if markup.tags[index].word not in ("{{", "{#"):
                raise markup.refuse(
                    markup.place(index),
                    "no statement in a style sheet that is inlined: write a value, {{ colour }}",
                )
    mask = Mask(markup)
    words = _words(markup, nodes)
    masked = mask.put_on(words, implied(markup, nodes))
    if css:  # MJML: of its other style sheets, nothing moves
        masked = _STYLE.sub(f"<style{_IGNORED}", masked)
    inliner = css_inline.CSSInliner(
        keep_style_tags=True,
        keep_at_rules=True,
        keep_link_tags=True,
        remove_inlined_selectors=not css,
        load_remote_stylesheets=False,
        extra_css=css or None,
    )
    try:
        html = inliner.inline(masked).replace(_IGNORED, "")
    except ValueError as error:
        raise InvalidInput(f"{field}: its styles cannot be inlined: {error}", field=field) from None
    in_sheets = {index for node in sheets for index in markup.tags_in(node.begin, node.stop)}
    needed = [
        index
        for index, tag in enumerate(markup.tags)
        if tag.word != "{#" and index not in in_sheets
    ]
    made = mask.take_off(_EMPTY_STYLE.sub("", html), needed)
    check_same(markup, nodes, Markup(made, field))
    return made


def _words(markup: Markup, nodes: list[Node]) -> list[int]:
    """The tags that cannot be comments: in attributes, in raw text, in comments."""
    words: list[int] = []
    parents: list[str] = []
    for node in nodes:
        if node.kind != "text" or (parents and parents[-1] in TEXT_ONLY):
            words += markup.tags_in(node.begin, node.stop)
        if node.opens:
            parents.append(node.name)
        elif node.kind == "end" and parents and parents[-1] == node.name:
            parents.pop()
    return words


def _check_elements(markup: Markup, nodes: list[Node]) -> None:
    first = next((node for node in nodes if node.kind == "start"), None)
    if first is None or first.name != "mjml":
        raise markup.refuse(first.begin if first else 0, "MJML begins with <mjml>")
    for node in nodes:
        if node.name == "mj-include":
            raise markup.refuse(
                node.begin, 'mj-include reads files, which is not available: {% include "name" %}'
            )
        if node.name.startswith("mj-") and node.name not in _HEAD and node.name not in _BODY:
            raise markup.refuse(node.begin, f"MJML has no element <{node.name}>")


def _take_inline_css(markup: Markup, nodes: list[Node]) -> str:
    """The rules of `<mj-style inline="inline">`, which leave the source."""
    css: list[str] = []
    for node, inner in pairwise(nodes):
        if node.kind != "start" or node.name != "mj-style" or inner.kind != "raw":
            continue
        if markup.word(node, "inline") != "inline":
            continue
        if markup.tags_in(node.begin, inner.stop):
            raise markup.refuse(node.begin, "no template code in a style that is inlined")
        css.append(markup.text[inner.begin : inner.stop])
        markup.blank(inner.begin, inner.stop)
    return "\n".join(css)


def _explained(markup: Markup, mask: Mask, masked: str, said: str) -> InvalidInput:
    """The compiler's error with the place in what the author wrote."""
    found = _POSITION.search(said)
    if found is None:
        return InvalidInput(f"mjml: {said}", field="mjml")
    offset = mask.offset(masked.encode()[: int(found[1])].decode(errors="ignore"))
    return markup.refuse(min(offset, max(0, len(markup.text) - 1)), said[: found.start()])
