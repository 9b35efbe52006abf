"""Layouts and blocks: a template's source with everything that it names put in its place.

    {% extends "name" %}     this source fills the blocks of a layout
    {% block name %}…        in a layout: what stands there unless it is filled
    {% include "name" %}     a block of the workspace, as if it were written here

All three are resolved here, so that what is rendered knows nothing of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.sending.build.piece import Piece, cut
from mailyard.sending.build.source import BLOCK, LAYOUT, REFERENCE, Part

DEPTH = 8  # a block in a block in a layout of a layout …
EXPANSIONS = 500

_BLOCK = re.compile(r"\{%[-+]?\s*block\s+([A-Za-z_][A-Za-z0-9_]*)\s*[-+]?%\}")
_ENDBLOCK = re.compile(r"\{%[-+]?\s*endblock(?:\s+[A-Za-z_][A-Za-z0-9_]*)?\s*[-+]?%\}")

Library = Mapping[str, Part]


@dataclass(slots=True)
class _Run:
    """One resolution, with what bounds it."""

    library: Library
    field: str
    part: str
    stack: list[str]
    size: int = 0
    expansions: int = 0

    def refuse(self, tag: Piece, message: str) -> InvalidInput:
        return InvalidInput(f"{tag.origin}: {message}", field=self.field)

    def take(self, tag: Piece, name: str, kind: str) -> list[Piece]:
        """The source of another template, cut."""
        part = self.library.get(name)
        if part is None:
            raise self.refuse(tag, f"there is no {kind} {name!r} that is published")
        if part.kind != kind:
            raise self.refuse(tag, f"{name!r} is no {kind}, it is a template of kind {part.kind}")
        if name in self.stack or len(self.stack) >= DEPTH:
            way = " > ".join([*self.stack, name])
            raise self.refuse(tag, f"layouts and blocks go in a circle or too deep: {way}")
        source = part.source(self.part)
        if source is None:
            raise self.refuse(tag, f"the {kind} {name!r} has no {_WORDS[self.part]}")
        self.expansions += 1
        self.size += len(source)
        if self.expansions > EXPANSIONS or self.size > limits.TEMPLATE_SOURCE_BYTES:
            raise self.refuse(tag, "layouts and blocks come to too much")
        label = "html" if self.part == "mjml" and not part.mjml else self.part
        return cut(source, f"{label} of {name}", self.field)


_WORDS = {"html": "HTML", "mjml": "MJML", "text": "text"}


def resolve(source: str, part: str, library: Library) -> list[Piece]:
    """`source` of the part `html`, `mjml` or `text` in pieces, with nothing left to resolve.

    Raises InvalidInput with the place.
    """
    run = _Run(library, part, part, [])
    return _expand(run, cut(source, part, part), {})


def _expand(run: _Run, pieces: list[Piece], filled: Mapping[str, list[Piece]]) -> list[Piece]:
    """`pieces` with its layout around it, `filled` in its blocks, and its includes."""
    extends = next((one for one in pieces if one.word == "extends"), None)
    if extends is None:
        return _fill(run, pieces, filled)
    name = _named(run, extends)
    own = _own_blocks(run, pieces, extends, filled)
    layout = run.take(extends, name, LAYOUT)
    run.stack.append(name)
    made = _expand(run, layout, own)
    run.stack.pop()
    return made


def _own_blocks(
    run: _Run, pieces: list[Piece], extends: Piece, filled: Mapping[str, list[Piece]]
) -> dict[str, list[Piece]]:
    """The blocks that a source with a layout fills; what fills it wins."""
    blocks: dict[str, list[Piece]] = {}
    position = 0
    while position < len(pieces):
        piece = pieces[position]
        if not piece.word:
            if piece.text.strip():
                raise run.refuse(
                    piece.lstripped(), "text outside of blocks, which a layout shows nowhere"
                )
            position += 1
        elif piece.word == "block":
            name, end = _block_name(run, piece), _end_of_block(run, pieces, position)
            if name in blocks:
                raise run.refuse(piece, f"the block {name!r} is there twice")
            inner = _trimmed(pieces, position, end)
            blocks[name] = filled[name] if name in filled else _fill(run, inner, filled)
            position = end + 1
        elif piece.word in ("extends", "{#"):
            if piece.word == "extends" and piece is not extends:
                raise run.refuse(piece, "a template has one layout")
            position += 1
        else:
            raise run.refuse(piece, "only blocks may stand beside extends")
    return {**blocks, **filled}


def _fill(run: _Run, pieces: list[Piece], filled: Mapping[str, list[Piece]]) -> list[Piece]:
    """Blocks become what fills them, or what stands in them; includes what they name."""
    out: list[Piece] = []
    names: set[str] = set()
    position = 0
    while position < len(pieces):
        piece = pieces[position]
        if piece.word == "block":
            name, end = _block_name(run, piece), _end_of_block(run, pieces, position)
            if name in names:
                raise run.refuse(piece, f"the block {name!r} is there twice")
            names.add(name)
            _strip_last(out, piece)
            inner = _trimmed(pieces, position, end)
            out += filled[name] if name in filled else _fill(run, inner, filled)
            _strip_next(pieces, end)
            position = end
        elif piece.word == "endblock":
            raise run.refuse(piece, "this block was not begun")
        elif piece.word == "include":
            name = _named(run, piece)
            _strip_last(out, piece)
            included = run.take(piece, name, BLOCK)
            run.stack.append(name)
            out += _expand(run, included, {})
            run.stack.pop()
            _strip_next(pieces, position)
        elif piece.word == "extends":
            raise run.refuse(piece, "extends stands at the beginning of a template")
        else:
            out.append(piece)
        position += 1
    return out


def _named(run: _Run, tag: Piece) -> str:
    found = REFERENCE.fullmatch(tag.text)
    if found is None:
        raise run.refuse(tag, f'expected {{% {tag.word} "name" %}}')
    return found[2] or found[3]


def _block_name(run: _Run, tag: Piece) -> str:
    found = _BLOCK.fullmatch(tag.text)
    if found is None:
        raise run.refuse(tag, "expected {% block name %}")
    return found[1]


def _end_of_block(run: _Run, pieces: Sequence[Piece], start: int) -> int:
    depth = 0
    for position in range(start, len(pieces)):
        piece = pieces[position]
        depth += piece.word == "block"
        if piece.word == "endblock":
            if not _ENDBLOCK.fullmatch(piece.text):
                raise run.refuse(piece, "expected {% endblock %}")
            depth -= 1
            if depth == 0:
                return position
    raise run.refuse(pieces[start], "this block is not closed: {% endblock %} is missing")


# A tag that goes takes the whitespace that its `-` asks for with it. -----------------------------


def _trimmed(pieces: Sequence[Piece], start: int, end: int) -> list[Piece]:
    inner = list(pieces[start + 1 : end])
    if inner and not inner[0].word and pieces[start].strips_behind:
        inner[0] = inner[0].lstripped()
    if inner and not inner[-1].word and pieces[end].strips_before:
        inner[-1] = inner[-1].rstripped()
    return inner


def _strip_last(out: list[Piece], tag: Piece) -> None:
    if out and not out[-1].word and tag.strips_before:
        out[-1] = out[-1].rstripped()


def _strip_next(pieces: list[Piece], position: int) -> None:
    if position + 1 < len(pieces):
        following = pieces[position + 1]
        if pieces[position].strips_behind and not following.word:
            pieces[position + 1] = following.lstripped()
