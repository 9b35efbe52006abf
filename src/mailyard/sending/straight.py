"""A template that only writes variables between literal text, as most do, without the engine.

That takes half of the time, for every mail of a campaign. Which template is straight is decided
when it is compiled: the engine itself must write trials to the same letter. What is neither plain
text nor a whole number (a fraction, a null, a name that is missing) is left to the engine, mail by
mail.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from minijinja import TemplateError

from mailyard.core import limits

# Values of so many characters, each escaped with six, stay within the output's limit.
_CHARACTERS = (limits.TEMPLATE_OUTPUT_BYTES - limits.TEMPLATE_SOURCE_BYTES) // 6
_VARIABLE = re.compile(r"\{\{[ \t\n]*([A-Za-z_][A-Za-z0-9_]*)[ \t\n]*\}\}")
_CODE = re.compile(r"\{[{%#]")
_SPECIAL = re.compile("[&<>\"'/]")
_TRIAL = "{0} <b>'\"&/\\</b> Łukasz %s {{{{ x }}}}"
_WHOLE = 1 << 63  # numbers below are the engine's own whole numbers
_NUMBER_CHARACTERS = 20

Texts = Mapping[str, Any]
ByEngine = Callable[[str, Texts], str]  # (source's name, data) -> what it comes to


class StraightMail:
    """The three sources of a template, each cut at its variables."""

    __slots__ = ("_all", "_html", "_html_names", "_names", "_numbers", "_subject", "_text",
                 "_weight")  # fmt: skip

    def __init__(self, subject: "_Cut", html: "_Cut", text: "_Cut") -> None:
        self._subject = _writer(subject)
        self._html = _writer(html)
        self._text = _writer(text)
        self._html_names = tuple(dict.fromkeys(html.names))
        self._names = tuple(dict.fromkeys([*subject.names, *html.names, *text.names]))
        self._all = _getter(self._names)
        self._weight = max(len(cut.names) for cut in (subject, html, text))
        self._numbers = len(self._names) * _NUMBER_CHARACTERS  # at most

    def write(self, data: Texts, characters: int) -> tuple[str, str, str] | None:
        """Subject, HTML and text; None when the engine must see `data`, of `characters` in all but
        its numbers."""
        if self._weight * (characters + self._numbers) >= _CHARACTERS:
            return None
        texts = data
        try:
            values = self._all(data)
            for name, value in zip(self._names, values, strict=True):
                if type(value) is int and -_WHOLE < value < _WHOLE:
                    texts = {**texts, name: str(value)}
            joined = "".join(values if texts is data else self._all(texts))
            if not joined.isascii():
                joined.encode()
        except (KeyError, TypeError, UnicodeEncodeError):
            return None
        shown = texts
        if _SPECIAL.search(joined):
            shown = {name: _escaped(texts[name]) for name in self._html_names}
        return self._subject(texts), self._html(shown), self._text(texts)


class _Cut:
    """A source as literals and the names between them."""

    __slots__ = ("literals", "names")

    def __init__(self, source: str) -> None:
        pieces = _VARIABLE.split(source)
        self.literals = pieces[0::2]
        self.names = pieces[1::2]


def straight_mail(
    sources: Mapping[str, str], variables: Sequence[str], by_engine: ByEngine
) -> StraightMail | None:
    """The template of `sources` (subject, html, text), or None when the engine has to write it."""
    cuts = {name: _Cut(source) for name, source in sources.items()}
    for cut in cuts.values():
        if not set(cut.names) <= set(variables) or any(map(_CODE.search, cut.literals)):
            return None  # a name of the engine's own, or more than variables
    mail = StraightMail(cuts["subject"], cuts["html"], cuts["text"])
    trials: list[Texts] = [
        {name: _TRIAL.format(name) for name in variables},
        {name: 1 - _WHOLE + nth for nth, name in enumerate(variables)},
    ]
    try:
        for trial in trials:
            written = [by_engine(name, trial) for name in ("subject", "html", "text")]
            ours = mail.write(trial, 0)
            if ours is None or list(ours) != written:
                return None
    except TemplateError:
        return None
    return mail


def _writer(cut: _Cut) -> Callable[[Texts], str]:
    form = "%s".join([literal.replace("%", "%%") for literal in cut.literals])
    values_of = _getter(cut.names)
    return lambda texts: form % values_of(texts)


def _getter(names: Sequence[str]) -> Callable[[Texts], tuple[Any, ...]]:
    """What gets the values of `names` out of a mapping."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda texts: tuple([texts[name] for name in names])


def _escaped(text: str) -> str:
    """`text` as the engine writes it into HTML."""
    if not _SPECIAL.search(text):
        return text
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace('"', "&quot;").replace("'", "&#x27;").replace("/", "&#x2f;")
