"""Elements that HTML implies where nobody wrote them, and template code on their edge.

A parser opens `<body>` at the first text and `<tbody>` at the first `<tr>`. A loop that begins just
before would then begin outside of them and end inside, so they are written where the code begins.
What a parser may still do, move an element elsewhere, is found by comparing afterwards.
"""

from mailyard.sending.build.markup import Markup, Node

_IMPLIED = frozenset((
    "html", "head", "body", "tbody", "colgroup",
))  # fmt: skip


def implied(markup: Markup, nodes: list[Node]) -> dict[int, str]:
    """What to write at which offsets, so that a parser opens nothing by itself behind code."""
    added: dict[int, str] = {}
    if not any(node.kind == "start" and node.name == "body" for node in nodes):
        added[_body(nodes)] = "<body>"
    following = _next_starts(nodes)
    tables: list[str] = []  # `table` while no part of it is open, else that part
    for index, node in enumerate(nodes):
        if node.kind == "start" and node.name == "table":
            tables.append("table")
        elif node.kind == "end" and node.name == "table" and tables:
            tables.pop()
        elif tables and node.kind == "start" and node.name in ("tbody", "thead", "tfoot", "tr"):
            tables[-1] = "tbody" if node.name == "tr" else node.name
        elif tables and node.kind == "end" and node.name in ("tbody", "thead", "tfoot"):
            tables[-1] = "table"
        elif tables and tables[-1] == "table" and node.kind == "text":
            code = markup.tags_in(node.begin, node.stop)
            if code and following[index] == "tr":
                added[markup.place(code[0])] = "<tbody>"
                tables[-1] = "tbody"
    return added


def _next_starts(nodes: list[Node]) -> list[str]:
    """For each node the name of the next element that begins."""
    names: list[str] = []
    name = ""
    for node in reversed(nodes):
        if node.kind == "start":
            name = node.name
        names.append(name)
    return names[::-1]


def _body(nodes: list[Node]) -> int:
    """Where the body begins that nobody wrote."""
    place = 0
    for node in nodes:
        if node.kind == "declaration" or (node.kind == "start" and node.name == "html"):
            place = node.stop
        elif node.kind == "end" and node.name == "head":
            return node.stop
    return place


def check_same(markup: Markup, nodes: list[Node], made: Markup) -> None:
    """Elements and code come in the order in which they were written.

    Raises InvalidInput with the place where they begin not to.
    """
    before, after = _order(markup, nodes), _order(made, made.nodes())
    for index, (word, place) in enumerate(before):
        if index >= len(after) or after[index][0] != word:
            raise markup.refuse(
                place,
                f"{word[:60]} cannot stand here as HTML has it, or an element before it is not"
                " closed: correct it, or do without inlining CSS (`inline_css`)",
            )


def _order(markup: Markup, nodes: list[Node]) -> list[tuple[str, int]]:
    """Start tags, code and text between them (but for its spaces), with their places."""
    found: list[tuple[str, int]] = []
    text: list[str] = []
    begin = 0

    def end_text() -> None:
        words = "".join("".join(text).split())
        if words:
            found.append((words, begin))
        text.clear()

    for node in nodes:
        if node.kind == "start" and node.name not in _IMPLIED and node.name != "style":
            end_text()
            found.append((f"<{node.name}>", node.begin))
        elif node.kind == "text":
            for piece, place in markup.placed(node.begin, node.stop):
                if piece.word:
                    end_text()
                    found.append((piece.text, place))
                elif not text:
                    begin = place
                if not piece.word:
                    text.append(piece.text)
    end_text()
    return found
