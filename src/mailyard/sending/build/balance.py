"""Template statements and the elements around them must nest: what a branch opens, it closes.

    {% if x %}<div>{% else %}<div class="b">{% endif %}…</div>

is fine for the engine and lost for every tool that reads the HTML as a tree, so it is refused where
such a tool is used.
"""

from mailyard.core.errors import InvalidInput
from mailyard.sending.build.markup import DEPTH, OPTIONAL_END, Markup, Node

_BEGIN = frozenset(("if", "for"))
_MIDDLE = frozenset(("elif", "else"))
_END = frozenset(("endif", "endfor"))

Open = tuple[str, int]  # an element's name and where it begins


def check(markup: Markup, nodes: list[Node], *, strict: bool) -> None:
    """Walk the nodes. `strict`: as XML, every element is closed, in order (MJML).

    Raises InvalidInput with the place of what does not nest, or nests too deep.
    """
    walk = _Walk(markup, strict)
    for node in nodes:
        if node.kind == "start":
            walk.inside_tag(node)
            if node.opens:
                walk.open(node)
        elif node.kind == "end":
            walk.close(node)
        elif node.kind in ("raw", "comment"):
            walk.inside(node.begin, node.stop, "a style, a title or a comment")
        else:
            walk.text(node)
            for index in markup.tags_in(node.begin, node.stop):
                walk.statement(index)
    walk.end()


class _Walk:
    def __init__(self, markup: Markup, strict: bool) -> None:
        self._markup = markup
        self._strict = strict
        self._elements: list[Open] = []
        self._branches: list[tuple[int, list[str]]] = []  # the tag's index, the elements open then

    def _counted(self) -> list[str]:
        if self._strict:
            return [name for name, _ in self._elements]
        return [name for name, _ in self._elements if name not in OPTIONAL_END]

    def open(self, node: Node) -> None:
        if len(self._elements) >= DEPTH:
            raise self._markup.refuse(node.begin, f"elements nest deeper than {DEPTH}")
        self._elements.append((node.name, node.begin))

    def close(self, node: Node) -> None:
        names = [name for name, _ in self._elements]
        if self._strict:
            if not names:
                raise self._markup.refuse(node.begin, f"</{node.name}> closes nothing")
            if names[-1] != node.name:
                opened = self._markup.origin(self._elements[-1][1])
                raise self._markup.refuse(
                    node.begin,
                    f"</{node.name}> where </{names[-1]}> is due, which was opened in line"
                    f" {opened.line}, column {opened.column}",
                )
            self._elements.pop()
        elif node.name in names:
            while self._elements and self._elements.pop()[0] != node.name:
                pass

    def text(self, node: Node) -> None:
        if self._strict:
            alone = self._markup.text.find("<", node.begin, node.stop)
            if alone >= 0:
                raise self._markup.refuse(alone, "a < that begins no element is written &lt;")

    def statement(self, index: int) -> None:
        word = self._markup.tags[index].word
        if word in _BEGIN:
            self._branches.append((index, self._counted()))
        elif word in _MIDDLE or word in _END:
            if not self._branches:
                raise self._refuse(index, f"{word} without its beginning")
            if self._branches[-1][1] != self._counted():
                raise self._refuse(
                    index,
                    "an element that is opened in a branch or loop must be closed in it"
                    + ("" if self._strict else ", or CSS not be inlined (`inline_css`)"),
                )
            if word in _END:
                self._branches.pop()

    def inside_tag(self, node: Node) -> None:
        """Statements may stand in an attribute's value, whole; values only there too."""
        markup = self._markup
        inside = set(markup.tags_in(node.begin, node.stop))
        for name, begin, stop in markup.attributes(node):
            for index in markup.tags_in(begin, stop):
                inside.discard(index)
                if name == "style":
                    self._in_style(index, begin)
            self.inside(begin, stop, "an attribute")
        for index in sorted(inside):
            raise self._refuse(index, "inside a tag, template code stands in attributes' values")

    def _in_style(self, index: int, begin: int) -> None:
        """A style is taken apart: a value in it stands behind a property's name."""
        markup = self._markup
        if markup.tags[index].word not in ("{{", "{#"):
            raise self._refuse(
                index, "no statement in a style: write {{ 'red' if late else 'black' }}"
            )
        before = markup.text[begin : markup.place(index)].rpartition(";")[2]
        if not self._strict and ":" not in before:
            raise self._refuse(index, "in a style that is taken apart, write property: {{ value }}")

    def inside(self, begin: int, stop: int, what: str) -> None:
        """Statements between two offsets begin and end there."""
        depth = 0
        for index in self._markup.tags_in(begin, stop):
            word = self._markup.tags[index].word
            depth += (word in _BEGIN) - (word in _END)
            if depth < 0:
                break
        if depth:
            first = self._markup.tags_in(begin, stop)[0]
            raise self._refuse(first, f"a statement that begins in {what} ends in it")

    def end(self) -> None:
        if self._strict and self._elements:
            name, begin = self._elements[-1]
            raise self._markup.refuse(begin, f"<{name}> is not closed")
        if self._branches:
            index = self._branches[-1][0]
            raise self._refuse(index, f"{self._markup.tags[index].word} is not closed")

    def _refuse(self, index: int, message: str) -> InvalidInput:
        return self._markup.refuse(self._markup.place(index), message)
