"""The part of JSON Schema that answers are held to: small, bounded, without references or patterns.

A caller writes the schema of the fields that he wants; what is not in the table below is refused
when he gives it, so that nothing is asked for that would not be checked.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import KIB

SCHEMA_BYTES = 16 * KIB
DEPTH = 6
PROPERTIES = 60
ENUM_VALUES = 100
STRING_CHARACTERS = 2_000  # of a string whose schema says nothing
ITEMS = 50

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_WORDS = {
    "type", "properties", "required", "additionalProperties", "items", "enum", "description",
    "title", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum",
}  # fmt: skip


def check_schema(schema: Mapping[str, Any], field: str) -> None:
    """Raises InvalidInput naming the place when a schema is none that answers can be held to."""
    if len(msgspec.json.encode(schema)) > SCHEMA_BYTES:
        raise InvalidInput(f"a schema has at most {SCHEMA_BYTES} bytes", field=field)
    if schema.get("type") != "object" or not schema.get("properties"):
        raise InvalidInput('the root is {"type": "object", "properties": {…}}', field=field)
    left = [PROPERTIES]
    _check(schema, field, DEPTH, left)


def _check(schema: Any, path: str, depth: int, left: list[int]) -> None:
    if not isinstance(schema, Mapping):
        raise InvalidInput("a schema is an object", field=path)
    if depth <= 0:
        raise InvalidInput(f"at most {DEPTH} levels", field=path)
    unknown = sorted(set(schema) - _WORDS)
    if unknown:
        raise InvalidInput(
            f"{unknown[0][:60]!r} is not among what is checked: {', '.join(sorted(_WORDS))}",
            field=path,
        )
    _check_types(schema, path)
    if schema.get("additionalProperties", False) is not False:
        raise InvalidInput("additionalProperties is false, whatever is said", field=path)
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping):
        raise InvalidInput("properties is an object", field=path)
    left[0] -= len(properties)
    if left[0] < 0:
        raise InvalidInput(f"at most {PROPERTIES} properties in all", field=path)
    required = schema.get("required", [])
    if not isinstance(required, list) or not set(map(str, required)) <= set(properties):
        raise InvalidInput("required names properties", field=path)
    for name, inner in properties.items():
        _check(inner, f"{path}.{name[:60]}", depth - 1, left)
    if "items" in schema:
        _check(schema["items"], f"{path}.items", depth - 1, left)
    elif "array" in _types_of(schema):
        raise InvalidInput("an array says what its items are", field=path)


def _check_types(schema: Mapping[str, Any], path: str) -> None:
    types = _types_of(schema)
    unknown = [name for name in types if name not in _TYPES]
    if unknown:
        raise InvalidInput(f"a type is one of {', '.join(_TYPES)}", field=path)
    values = schema.get("enum")
    if values is None and not types:
        raise InvalidInput("a schema has a type or an enum", field=path)
    if values is not None:
        plain = isinstance(values, list) and all(
            isinstance(one, (str, int, float, bool, type(None))) for one in values
        )
        if not plain or not 1 <= len(values) <= ENUM_VALUES:
            raise InvalidInput(f"an enum has 1 to {ENUM_VALUES} plain values", field=path)
    for word in ("minLength", "maxLength", "minItems", "maxItems"):
        value = schema.get(word, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidInput(f"{word} is a whole number", field=path)
    for word in ("minimum", "maximum"):
        if isinstance(schema.get(word, 0), bool) or not isinstance(
            schema.get(word, 0), (int, float)
        ):
            raise InvalidInput(f"{word} is a number", field=path)


def violation(value: Any, schema: Mapping[str, Any], path: str = "answer") -> str | None:
    """What is wrong with `value`, with its place; None when it is as the schema wants it."""
    types = _types_of(schema)
    if types and not any(_is(value, name) for name in types):
        return f"{path} is no {' or '.join(types)}"
    values = schema.get("enum")
    if values is not None and not any(value == one and type(value) is type(one) for one in values):
        return f"{path} is none of its values"
    if isinstance(value, dict):
        return _object_violation(value, schema, path)
    if isinstance(value, list):
        return _array_violation(value, schema, path)
    if isinstance(value, str):
        longest = schema.get("maxLength", STRING_CHARACTERS)
        if not schema.get("minLength", 0) <= len(value) <= longest:
            return f"{path} has not {schema.get('minLength', 0)} to {longest} characters"
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        least, most = schema.get("minimum", value), schema.get("maximum", value)
        return None if least <= value <= most else f"{path} is out of its bounds"
    return None


def _object_violation(value: dict[str, Any], schema: Mapping[str, Any], path: str) -> str | None:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            return f"{path}.{name} is missing"
    for name, inner in value.items():
        if name not in properties:
            return f"{path} has a field that nobody asked for"
        wrong = violation(inner, properties[name], f"{path}.{name}")
        if wrong is not None:
            return wrong
    return None


def _array_violation(value: list[Any], schema: Mapping[str, Any], path: str) -> str | None:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", ITEMS):
        return f"{path} has too many items or too few"
    for index, inner in enumerate(value):
        wrong = violation(inner, schema["items"], f"{path}.{index}")
        if wrong is not None:
            return wrong
    return None


def _types_of(schema: Mapping[str, Any]) -> list[str]:
    said = schema.get("type", [])
    return [said] if isinstance(said, str) else [str(one) for one in said]


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return False
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[name])
