"""The documentation page: the OpenAPI document as HTML, without script or outside asset."""

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_STYLE = files("mailyard.web.api").joinpath("docs.css").read_text("utf-8")
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest()).decode()

DOCS_HEADERS: list[tuple[bytes, bytes]] = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'".encode(),
    ),
]
_METHODS = ("get", "post", "put", "patch", "delete")


def render_docs(document: dict[str, Any]) -> bytes:
    """The page of `document`, in UTF-8."""
    source = files("mailyard.web.api").joinpath("docs.html").read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = kind_of
    environment.filters["rules"] = rules_of
    page = environment.from_string(source).render(
        info=document["info"],
        groups=_groups(document),
        schemas=document["components"]["schemas"],
        schemes=document["components"]["securitySchemes"],
        style=Markup(_STYLE),
    )
    return page.encode()


def _groups(document: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    groups: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                operation = {**methods[method], "method": method.upper(), "path": path}
                groups[operation["tags"][0]].append(operation)
    return list(groups.items())


def kind_of(schema: dict[str, Any]) -> Markup:
    """A schema's type in a few words, with links to the schemas that it names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return Markup('<a href="#schema-{0}">{0}</a>').format(name)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return Markup(" or ").join(kind_of(one) for one in schema[choice])
    if "enum" in schema:
        return Markup(" | ").join(Markup("<code>{}</code>").format(one) for one in schema["enum"])
    if schema.get("type") == "array":
        return Markup("array of ") + kind_of(schema.get("items", {}))
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return Markup("object of ") + kind_of(schema["additionalProperties"])
    text = schema.get("format") or schema.get("contentEncoding") or schema.get("type") or "any"
    return Markup("{}").format(text)


def rules_of(schema: dict[str, Any]) -> str:
    """A schema's limits in a few words."""
    words = {
        "minLength": "at least {} characters",
        "maxLength": "at most {} characters",
        "minimum": "from {}",
        "maximum": "to {}",
        "minItems": "at least {} items",
        "maxItems": "at most {} items",
        "maxProperties": "at most {} entries",
        "pattern": "like {}",
    }
    parts = [text.format(schema[name]) for name, text in words.items() if name in schema]
    if schema.get("default") not in (None, "", [], {}):
        parts.append(f"default {schema['default']}")
    return ", ".join(parts)
