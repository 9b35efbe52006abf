"""What a template may say: a subset of Jinja whose work and output can be bounded beforehand.

The engine's fuel counts instructions, not bytes: `{% set x = x ~ x %}` thirty times is a gigabyte
for two hundred units of fuel, and a process that runs out of memory in native code dies. So the
constructs that multiply text are refused here, before the engine sees them, and what is left has a
*weight*: how many copies of a value one expression can hold. What loops still can multiply is
counted while rendering (`render.py`).

The lexer agrees with the engine's or refuses: maps, `raw` blocks, braces inside strings and code
inside comments, where two lexers could part ways, are not in the subset.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.sending.position import OPENING, Positions

STATEMENTS = frozenset(("if", "elif", "else", "endif", "for", "endfor", "set"))
FILTERS = frozenset((
    "abs", "bool", "capitalize", "count", "d", "default", "dictsort", "e", "escape",
    "filesizeformat", "first", "float", "groupby", "int", "items", "join", "last", "length",
    "lines", "list", "lower", "map", "max", "min", "pluralize", "reject", "rejectattr", "replace",
    "reverse", "round", "safe", "select", "selectattr", "sort", "split", "string", "striptags",
    "sum", "times", "title", "tojson", "trim", "truncate", "unique", "upper", "urlencode",
))  # fmt: skip
TESTS = frozenset((
    "boolean", "defined", "divisibleby", "endingwith", "eq", "equalto", "even", "false", "float",
    "ge", "gt", "in", "integer", "iterable", "le", "lower", "lt", "mapping", "ne", "none", "number",
    "odd", "sequence", "startingwith", "string", "true", "undefined", "upper",
))  # fmt: skip
LOCALISED = frozenset(("date", "datetime", "money", "number", "percent", "time"))  # tongue.py
_GROWING = {"tojson": 6, "urlencode": 3, "e": 6, "escape": 6, "filesizeformat": 2}
# Filters that walk a whole list or text for one unit of fuel, as the operator `in` does.
_WALKING = frozenset((
    "dictsort", "groupby", "items", "join", "lines", "list", "map", "max", "min", "reject",
    "rejectattr", "replace", "reverse", "select", "selectattr", "sort", "split", "string", "sum",
    "tojson", "unique",
))  # fmt: skip
_WITHOUT_ARGUMENTS = frozenset(("tojson", "list", "string", "e", "escape", "urlencode"))
_MAPPED = frozenset((
    "upper", "lower", "title", "capitalize", "trim", "string", "int", "float", "abs", "round",
    "length", "first", "last", "striptags",
))  # fmt: skip
_REFUSED_NAMES = frozenset(
    ("namespace", "debug", "cycler", "joiner", "dict", "self", "super", "caller", "recursive")
)
_WORDS = frozenset(("and", "or", "not", "in", "is", "if", "else", "elif", "for", "set"))
_CONSTANTS = frozenset(("true", "false", "none", "True", "False", "None", "loop", "range"))
_LOOP_CALLS = frozenset(("cycle", "changed"))
# Attribute names that a Python container would answer itself when the data has no such key.
_CONTAINER_NAMES = frozenset(
    name for kind in (dict, list) for name in dir(kind) if not name.startswith("_")
)

TOKENS_PER_TAG = 400  # deep nesting overflows the engine's stack long after this
WEIGHT_MAX = 64

_TOKEN = re.compile(
    r"""(?P<space>\s++)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*+)
    |(?P<number>[0-9][0-9]{0,14}(?:\.[0-9]{1,15})?(?![A-Za-z0-9_]))
    |(?P<string>"(?:[^"\\{}%]++|\\[^{}%])*+"|'(?:[^'\\{}%]++|\\[^{}%])*+')
    |(?P<operator>==|!=|<=|>=|//|[-+~/%<>=.,:|()\[\]])""",
    re.VERBOSE,
)

Token = tuple[str, str]  # kind, text


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found in one source."""

    code: bool  # whether there is anything to render
    weight: int  # of all expressions together: copies of a value that one pass can write
    loop_text: int  # characters of the longest literal text inside a loop; 0 without loops
    loops: bool
    walks: int  # filters that walk a whole list
    loop_walks: int  # those of them inside loops
    names: frozenset[str]  # every variable read or set
    container_names: bool  # reads an attribute that a Python container would answer itself
    localised: bool  # writes dates, numbers or money by locale


class Lexer:
    """Finds the tags of a source. Raises InvalidInput naming `field` and the place."""

    def __init__(self, source: str, field: str, positions: Positions) -> None:
        self.source = source
        self.field = field
        self._positions = positions

    def refuse(self, message: str, position: int) -> InvalidInput:
        return InvalidInput(f"{self._positions.at(position)}: {message}", field=self.field)

    def tags(self) -> Iterator[tuple[int, int, list[Token]]]:
        """Start, end and tokens of each tag; a comment has no tokens."""
        position = 0
        while (opening := OPENING.search(self.source, position)) is not None:
            start = opening.start()
            tokens: list[Token] = []
            if opening[0] == "{#":
                position = self._comment(start)
            else:
                tokens, position = self._tag(start, "}}" if opening[0] == "{{" else "%}")
            yield start, position, tokens

    def _comment(self, start: int) -> int:
        end = self.source.find("#}", start + 2)
        inner = self.source[start + 2 : end]
        if end < 0:
            raise self.refuse("a comment is not closed", start)
        if OPENING.search(inner) or inner[:1] == "}" or inner[:2] == "-}":
            raise self.refuse("a comment must not hold {{, {%, {# or start with }", start)
        return end + 2

    def _tag(self, start: int, close: str) -> tuple[list[Token], int]:
        """The tokens of the tag at `start`, and where the text after it begins."""
        source = self.source
        position = start + 2
        if source[position : position + 1] in ("-", "+"):
            position += 1
        tokens: list[Token] = []
        while True:
            for end in (close, f"-{close}", f"+{close}"):
                if source.startswith(end, position):
                    if not tokens:
                        raise self.refuse("an empty tag", start)
                    return tokens, position + len(end)
            found = _TOKEN.match(source, position)
            if found is None:
                raise self._unexpected(position, start)
            kind = found.lastgroup or ""
            if kind != "space":
                tokens.append((kind, found[0]))
            if len(tokens) > TOKENS_PER_TAG:
                raise self.refuse(f"a tag holds more than {TOKENS_PER_TAG} words and signs", start)
            position = found.end()

    def _unexpected(self, position: int, start: int) -> InvalidInput:
        rest = self.source[position : position + 20]
        if not rest:
            return self.refuse("a tag is not closed", start)
        if rest[0] == "*":
            return self.refuse("* is not available here; use `|times(…)`", position)
        if rest[0] in "\"'":
            return self.refuse("a string must be closed and hold no {, } or %", position)
        if rest[0] in "{}":
            return self.refuse("{ and } are not available inside a tag", position)
        return self.refuse(f"unexpected {rest[:1]!r}", position)


class _Examiner(Lexer):
    def __init__(self, source: str, field: str, positions: Positions) -> None:
        super().__init__(source, field, positions)
        self.weights: dict[str, int] = {}
        self.names: set[str] = set()
        self.walks = 0
        self.loop_walks = 0
        self.total = 0
        self.open_loops = 0
        self.loops = False
        self.loop_text = 0
        self.container_names = False
        self.localised = False

    def run(self) -> Examined:
        source = self.source
        behind = 0
        code = False
        for start, end, tokens in self.tags():
            code = True
            if self.open_loops:
                self.loop_text = max(self.loop_text, start - behind)
            behind = end
            if source.startswith("{{", start):
                self.total += self._weigh(tokens, start)
            elif tokens:
                self._statement(tokens, start)
        return Examined(
            code=code,
            weight=self.total,
            loop_text=self.loop_text,
            loops=self.loops,
            walks=self.walks,
            loop_walks=self.loop_walks,
            names=frozenset(self.names),
            container_names=self.container_names,
            localised=self.localised,
        )

    # Statements ------------------------------------------------------------------------------

    def _statement(self, tokens: list[Token], at: int) -> None:
        kind, word = tokens[0]
        if kind != "name" or word not in STATEMENTS:
            raise self.refuse(f"{word!r} is not available; there are if, for and set", at)
        if word in ("if", "elif"):
            self._weigh(tokens[1:], at)
        elif word == "set":
            self._set(tokens, at)
        elif word == "for":
            self._for(tokens, at)
        elif word == "endfor":
            self.open_loops = max(0, self.open_loops - 1)

    def _set(self, tokens: list[Token], at: int) -> None:
        if len(tokens) < 4 or tokens[1][0] != "name" or tokens[2][1] != "=":
            raise self.refuse("expected {% set name = value %}", at)
        name = tokens[1][1]
        self._check_new_name(name, at)
        weight = self._weigh(tokens[3:], at)
        self.weights[name] = max(weight, self.weights.get(name, 1))

    def _for(self, tokens: list[Token], at: int) -> None:
        names = [text for kind, text in tokens]
        if "in" not in names:
            raise self.refuse("expected {% for name in values %}", at)
        split = names.index("in")
        weight = self._weigh(tokens[split + 1 :], at)
        for kind, name in tokens[1:split]:
            if kind == "name":
                self._check_new_name(name, at)
                self.weights[name] = max(weight, self.weights.get(name, 1))
            elif name not in ",()":
                raise self.refuse("expected {% for name in values %}", at)
        self.open_loops += 1
        self.loops = True

    def _check_new_name(self, name: str, at: int) -> None:
        if name in _REFUSED_NAMES or name in _CONSTANTS or name in _WORDS:
            raise self.refuse(f"{name!r} cannot be a variable here", at)

    # Expressions -----------------------------------------------------------------------------

    def _weigh(self, tokens: list[Token], at: int) -> int:
        """How many copies of a value the expression can hold. Refuses what is not in the subset."""
        weight = 0
        growth = 1
        before: Token = ("", "")
        earlier: Token = ("", "")
        for position, (kind, text) in enumerate(tokens):
            if kind == "name":
                attribute = before[1] == "." and before[0] == "operator"
                if before == ("operator", "|"):
                    self._check_filter(tokens, position, at)
                    growth *= _GROWING.get(text, 1)
                    self.localised |= text in LOCALISED
                    self._count_walk(text in _WALKING)
                elif before[1] == "is" or (before[1] == "not" and earlier[1] == "is"):
                    if text != "not" and text not in TESTS:
                        raise self.refuse(f"unknown test {text!r}", at)
                elif attribute:
                    self.container_names |= text in _CONTAINER_NAMES
                elif text in _REFUSED_NAMES:
                    raise self.refuse(f"{text!r} is not available in templates", at)
                else:
                    self._count_walk(text == "in")
                    self.names.add(text)  # words too: out of place, the engine takes them for names
                    if text not in _WORDS and text not in _CONSTANTS:
                        weight += self.weights.get(text, 1)
            elif kind == "string":
                weight += 1
            elif text == "(":
                self._check_call(before, earlier, tokens, position, at)
            elif text == "[" and (before[0] in ("name", "string") or before[1] in (")", "]")):
                self.container_names = True  # a name out of a variable, for all we know
            earlier, before = before, (kind, text)
        if weight * growth > WEIGHT_MAX:
            raise self.refuse("this repeats values too often", at)
        return max(1, weight * growth)

    def _count_walk(self, walks: bool) -> None:
        self.walks += walks
        self.loop_walks += walks and self.open_loops > 0

    def _check_filter(self, tokens: list[Token], position: int, at: int) -> None:
        name = tokens[position][1]
        if name not in FILTERS and name not in LOCALISED:
            raise self.refuse(f"unknown filter {name!r}", at)
        rest = tokens[position + 1 : position + 5]
        called = rest[:1] == [("operator", "(")]
        if called and name in _WITHOUT_ARGUMENTS and rest[1:2] != [("operator", ")")]:
            raise self.refuse(f"the filter {name!r} takes no arguments here", at)
        if name == "map":
            by_attribute = rest[1:3] == [("name", "attribute"), ("operator", "=")]
            by_filter = len(rest) > 2 and rest[1][0] == "string" and rest[2][1] == ")"
            if not by_attribute and not (by_filter and rest[1][1][1:-1] in _MAPPED):
                raise self.refuse("map takes attribute='name' or the name of a text filter", at)
        if name in ("map", "groupby"):
            for following, equals in zip(
                tokens[position + 1 :], tokens[position + 2 :], strict=False
            ):
                if following == ("name", "default") and equals[1] == "=":
                    raise self.refuse(f"{name} takes no default here", at)

    def _check_call(
        self, before: Token, earlier: Token, tokens: list[Token], position: int, at: int
    ) -> None:
        """An opening bracket groups, or calls a filter, a test, range or a loop's own method."""
        kind, name = before
        if kind == "operator" and name not in (")", "]"):
            return
        if kind == "":
            return
        if kind == "name":
            if name in _WORDS or earlier == ("operator", "|"):
                return
            if earlier[1] == "is" or (
                earlier[1] == "not" and tokens[position - 3 :][:1] == [("name", "is")]
            ):
                return
            if name == "range" and earlier[1] != ".":
                return
            loop = position >= 3 and tokens[position - 3] == ("name", "loop")
            if name in _LOOP_CALLS and earlier[1] == "." and loop:
                return
        raise self.refuse(f"calling {name!r} is not available in templates", at)


def examine(source: str, field: str, positions: Positions | None = None) -> Examined:
    """Check that `source` is in the subset. Raises InvalidInput naming `field` and the place."""
    if len(source) > limits.TEMPLATE_SOURCE_BYTES:
        raise TooLarge(f"larger than {limits.TEMPLATE_SOURCE_BYTES} bytes", field=field)
    return _Examiner(source, field, positions or Positions(source, field)).run()
