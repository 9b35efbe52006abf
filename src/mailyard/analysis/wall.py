"""The walls between a model and whoever reads its answer.

Whatever a model says, and it may say what the writer of the mail wants it to say: the answer is one
JSON object of the schema or it is none; a judgement is a word of a list; a quote is in the mail,
letter by letter; a text names nothing that acts (`ground.py`) and is not in the mail; what rules
found stays. What does not pass is taken out and counted, and nothing of it is repeated.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from mailyard.analysis.ground import Grounds
from mailyard.analysis.schema import violation
from mailyard.analysis.shown import Shown, seen
from mailyard.analysis.task import INDICATORS, Ask, answer_schema
from mailyard.core.limits import KIB

ANSWER_BYTES = 64 * KIB
_GONE = object()
_JUDGEMENTS = ("category", "urgency", "sentiment")


class Passed(Struct, frozen=True):
    """An answer behind the walls. `withheld`: the places that were taken out, and why."""

    answer: dict[str, Any]
    withheld: tuple[str, ...]


class NotAnAnswer(Exception):
    """What the model said is not the object that was asked for."""


def passed(ask: Ask, shown: Shown, said: str, rules: Mapping[str, Any]) -> Passed:
    """What may be shown of a model's answer. Raises NotAnAnswer.

    `rules`: what rules answer to the same ask; it stands in for what is taken out.
    """
    answer = _object_in(said)
    wrong = violation(answer, answer_schema(ask))
    if wrong is not None:
        raise NotAnAnswer(wrong)
    return _Walls(ask, shown, rules).let_through(answer)


def _object_in(said: str) -> dict[str, Any]:
    """The one JSON object of an answer, bare or in a fence of Markdown."""
    if len(said) > ANSWER_BYTES:
        raise NotAnAnswer("the answer is too long")
    text = said.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    try:
        answer = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise NotAnAnswer("the answer is no JSON") from None
    if not isinstance(answer, dict):
        raise NotAnAnswer("the answer is no JSON object")
    return answer


class _Walls:
    def __init__(self, ask: Ask, shown: Shown, rules: Mapping[str, Any]) -> None:
        self._ask = ask
        self._grounds = Grounds(shown.words)
        self._rules = rules
        self._withheld: list[str] = []

    def let_through(self, answer: dict[str, Any]) -> Passed:
        out: dict[str, Any] = {}
        for aspect in self._ask.aspects:
            value = answer[aspect]
            if aspect in _JUDGEMENTS:
                out[aspect] = self._judgement(aspect, value)
            elif aspect == "phishing":
                out[aspect] = self._indicators(value)
            else:
                out[aspect] = self._text(aspect, value)
        schema = self._ask.fields_schema
        if schema is not None:
            out["fields"] = self._fields(answer["fields"], schema)
        return Passed(out, tuple(self._withheld))

    def _judgement(self, aspect: str, value: dict[str, Any]) -> dict[str, Any]:
        quote = value["quote"]
        if quote is None or self._is_quote(quote):
            return {"value": value["value"], "quote": None if quote is None else seen(quote)}
        self._withheld.append(f"{aspect}: its quote is not in the mail")
        standing: dict[str, Any] = self._rules[aspect]
        return standing

    def _indicators(self, value: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those with a true quote, behind those that rules found: nobody talks these away."""
        kept: list[dict[str, Any]] = list(self._rules["phishing"])
        for index, one in enumerate(value):
            if not self._is_quote(one["quote"]):
                self._withheld.append(f"phishing.{index}: its quote is not in the mail")
            elif one not in kept:
                kept.append({"kind": one["kind"], "quote": seen(one["quote"])})
        return kept[:INDICATORS]

    def _is_quote(self, quote: str) -> bool:
        return self._grounds.stands(quote)

    def _text(self, place: str, text: str | None) -> str | None:
        if text is None:
            return None
        clean = seen(text).strip()
        named = self._grounds.strange(clean)
        if not named:
            return clean
        self._withheld.append(f"{place}: names {named[0]} that is not in the mail")
        standing: str | None = self._rules.get(place)
        return standing

    # The caller's fields --------------------------------------------------------------------------

    def _fields(self, value: Any, schema: Mapping[str, Any]) -> Any:
        """The fields without what is not in the mail, still of the caller's schema; else None."""
        kept = self._kept("fields", value, schema)
        if kept is _GONE or violation(kept, schema) is not None:
            self._withheld.append("fields: what is left is not of the schema")
            return None
        return kept

    def _kept(self, place: str, value: Any, schema: Mapping[str, Any]) -> Any:
        """`value`, or _GONE. What the caller lists himself (an enum) needs no ground."""
        if "enum" in schema or value is None or isinstance(value, bool):
            return value
        if isinstance(value, dict):
            return self._kept_object(place, value, schema)
        if isinstance(value, list):
            kept = [
                self._kept(f"{place}.{index}", one, schema["items"])
                for index, one in enumerate(value)
            ]
            return [one for one in kept if one is not _GONE]
        if isinstance(value, str):
            return self._kept_text(place, value)
        if "minimum" in schema and "maximum" in schema:
            return value  # a mark within the caller's bounds
        if self._grounds.has_number(float(value)):
            return value
        self._withheld.append(f"{place}: a number that is not in the mail")
        return _GONE

    def _kept_object(self, place: str, value: dict[str, Any], schema: Mapping[str, Any]) -> Any:
        out: dict[str, Any] = {}
        for name, inner in value.items():
            of = schema["properties"][name]
            kept = self._kept(f"{place}.{name}", inner, of)
            if kept is not _GONE:
                out[name] = kept
            elif violation(None, of) is None:
                out[name] = None
            elif name in schema.get("required", []):
                return _GONE
        return out

    def _kept_text(self, place: str, text: str) -> Any:
        clean = seen(text).strip()
        if not clean or self._grounds.stands(clean):
            return clean
        named = self._grounds.strange(clean)
        if not named:
            return clean
        self._withheld.append(f"{place}: {named[0]} that is not in the mail")
        return _GONE
