"""What an analysis is asked for, and the schema that its answer is held to."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

import msgspec
from msgspec import Struct

from mailyard.analysis.schema import check_schema
from mailyard.core.errors import InvalidInput

Aspect = Literal["category", "urgency", "sentiment", "summary", "phishing", "suggested_answer"]
ASPECTS: tuple[Aspect, ...] = (
    "category", "urgency", "sentiment", "summary", "phishing", "suggested_answer",
)  # fmt: skip

# Grows with every change of what a model is told: what was kept under an older one is asked anew.
PROMPT_VERSION = 1

CATEGORIES = (
    "sign_in", "order", "delivery", "invoice", "booking", "support", "complaint", "personal",
    "work", "newsletter", "advertising", "notification", "calendar", "automatic_reply", "spam",
    "other",
)  # fmt: skip
URGENCIES = ("low", "normal", "high")
SENTIMENTS = ("negative", "neutral", "positive")
PHISHING = (
    "link_says_another_place", "link_to_a_number", "lookalike_name", "asks_for_secrets",
    "asks_for_money", "threat_or_hurry", "sender_is_not_who_he_says", "dangerous_file",
    "answer_goes_elsewhere", "instructions_to_machines", "other",
)  # fmt: skip
QUOTE_CHARACTERS = 300
SUMMARY_CHARACTERS = 600
ANSWER_CHARACTERS = 2_000
INDICATORS = 20

_QUOTE = {"type": ["string", "null"], "maxLength": QUOTE_CHARACTERS}


class Ask(Struct, frozen=True):
    """Which aspects, and the schema of the caller's own fields as JSON (canonical), or empty."""

    aspects: tuple[Aspect, ...]
    fields: str = ""

    @property
    def task(self) -> bytes:
        """16 bytes that name the ask: the same words are the same task."""
        text = f"{PROMPT_VERSION}\n{','.join(self.aspects)}\n{self.fields}"
        return sha256(text.encode()).digest()[:16]

    @property
    def fields_schema(self) -> dict[str, Any] | None:
        if not self.fields:
            return None
        schema: dict[str, Any] = msgspec.json.decode(self.fields)
        return schema


def ask_of(aspects: Sequence[str], fields: Mapping[str, Any] | None) -> Ask:
    """An ask in one order, so that the same is the same. Raises InvalidInput."""
    unknown = sorted(set(aspects) - set(ASPECTS))
    if unknown:
        raise InvalidInput(f"{unknown[0][:60]!r} is none of {', '.join(ASPECTS)}", field="aspects")
    if not aspects and fields is None:
        raise InvalidInput("ask for an aspect or for fields", field="aspects")
    text = ""
    if fields is not None:
        check_schema(fields, "fields")
        text = msgspec.json.encode(fields, order="deterministic").decode()
    return Ask(tuple(one for one in ASPECTS if one in aspects), text)


EVERYTHING = Ask(ASPECTS)


def answer_schema(ask: Ask) -> dict[str, Any]:
    """What the model's answer is held to: judgements are words of a list, texts have an end."""
    known: dict[str, dict[str, Any]] = {
        "category": _judgement(CATEGORIES),
        "urgency": _judgement(URGENCIES),
        "sentiment": _judgement(SENTIMENTS),
        "summary": {"type": "string", "maxLength": SUMMARY_CHARACTERS},
        "phishing": {"type": "array", "maxItems": INDICATORS, "items": _indicator()},
        "suggested_answer": {"type": ["string", "null"], "maxLength": ANSWER_CHARACTERS},
    }
    properties: dict[str, Any] = {aspect: known[aspect] for aspect in ask.aspects}
    fields = ask.fields_schema
    if fields is not None:
        properties["fields"] = fields
    return _object(properties)


def _judgement(values: Sequence[str]) -> dict[str, Any]:
    return _object({"value": {"enum": list(values)}, "quote": _QUOTE})


def _indicator() -> dict[str, Any]:
    quote = {"type": "string", "minLength": 1, "maxLength": QUOTE_CHARACTERS}
    return _object({"kind": {"enum": list(PHISHING)}, "quote": quote})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
