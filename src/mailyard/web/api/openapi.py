"""The OpenAPI 3.1 document, made from the table of routes and the Structs that they check with.

Nothing is written twice: a limit in a Struct's `Meta` is what the server checks and what the
document says. Every status that a route can answer is listed, problems included.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from mailyard import __version__
from mailyard.access.scope import SCOPES
from mailyard.web.api.page import id_pattern
from mailyard.web.api.problem import TITLES, Problem
from mailyard.web.api.route import Media, Route

Queries = dict[str, dict[str, Any]]
_REF = "#/components/schemas/{name}"
_ID_NAMES = {
    "wsp": "workspace",
    "usr": "person",
    "key": "API key",
    "ibx": "inbox",
    "msg": "message",
    "thr": "thread",
    "dft": "draft",
    "txt": "template or signature",
    "eml": "email",
    "dlv": "delivery",
    "tpl": "template",
    "con": "contact",
    "lst": "list",
    "seg": "segment",
    "imp": "import",
    "cmp": "campaign",
    "dom": "sending domain",
    "rdm": "receiving domain",
    "irt": "inbound route",
    "prv": "provider",
    "mdl": "model",
    "sup": "suppression",
    "top": "topic",
    "tdm": "tracking domain",
    "hok": "address for a provider's events",
    "whk": "webhook",
    "whd": "delivery of a webhook",
    "dmo": "demo run",
    "inv": "invitation",
}
# Two rooms each have states of their own and call them so.
_STATES = {
    "mailyard.sending.states": ("DeliveryState", "Where a delivery stands."),
    "mailyard.campaigns.states": ("CampaignState", "Where a campaign stands."),
}
_RATE_HEADERS = {
    "RateLimit-Policy": "The limit: q requests in w seconds (IETF draft ratelimit-headers).",
    "RateLimit": "What is left: r requests now, all of them again in t seconds.",
}
_INTRODUCTION = """\
Send an API key with every request: `Authorization: Bearer my_…`. What a key may do is said by its
scopes. Errors are problem documents (RFC 9457) with a stable `code` and the offending `field`.
Lists come in pages: give `next_cursor` of one page as `cursor` for the next; it is null on the
last. A POST with an `Idempotency-Key` can be sent again: it is done once, and the first answer is
given for 24 hours. Ids are TypeIDs (`msg_…`), times are RFC 3339 in UTC.
"""


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document of `routes`, as plain JSON values."""
    routes = list(routes)
    _, components = msgspec.json.schema_components(_kinds(routes), ref_template=_REF)
    for module, (name, description) in _STATES.items():
        components[name] = {
            **components.pop(f"{module}.State"),
            "title": name,
            "description": description,
        }
    for schema in components.values():
        _tidy(schema)
    queries = {
        route.query.__name__: components[route.query.__name__] for route in routes if route.query
    }
    for name in queries:
        del components[name]
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.public_path, {})[route.method.lower()] = _operation(route, queries)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mailyard",
            "version": __version__,
            "summary": "Send, receive and follow email.",
            "description": _INTRODUCTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(components.items())),
            "responses": {f"Problem{status}": _problem(status) for status in TITLES},
            "headers": {
                name: {"description": text, "schema": {"type": "string"}}
                for name, text in _RATE_HEADERS.items()
            },
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key. Scopes: "
                    + "; ".join(f"`{name}`: {text}" for name, text in SCOPES.items()),
                }
            },
        },
    }


def _kinds(routes: list[Route]) -> list[type]:
    kinds: list[type] = [Problem]
    for route in routes:
        for kind in (route.body, route.answer, route.query):
            if kind is not None and not isinstance(kind, Media) and kind not in kinds:
                kinds.append(kind)
    return kinds


def _tidy(schema: Any) -> None:
    """Say it in a client's words: no defaults of null, no names of Python modules."""
    if isinstance(schema, dict):
        if "anyOf" in schema and schema.get("default", 0) is None:
            del schema["default"]
        module = schema.get("$ref", "").removeprefix(_REF.format(name="")).removesuffix(".State")
        if module in _STATES:
            schema["$ref"] = _REF.format(name=_STATES[module][0])
        for value in schema.values():
            _tidy(value)
    elif isinstance(schema, list):
        for value in schema:
            _tidy(value)


def _operation(route: Route, queries: Queries) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "tags": [route.tag],
        "summary": route.summary,
        "parameters": _parameters(route, queries),
        "responses": _responses(route),
    }
    description = route.description
    if route.scope is not None:
        description = f"{description}\n\nScope: `{route.scope}`.".strip()
        operation["security"] = [{"key": []}]
        operation["x-required-scope"] = route.scope
    else:
        operation["security"] = []
    if description:
        operation["description"] = description
    if route.body is not None:
        schema = {"$ref": _REF.format(name=route.body.__name__)}
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}},
        }
    elif route.upload:
        binary = {"type": "string", "contentMediaType": route.upload[0]}
        operation["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": binary} for kind in route.upload},
        }
    if not operation["parameters"]:
        del operation["parameters"]
    return operation


def _parameters(route: Route, queries: Queries) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    for name, prefix in route.parameters:
        schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 100}
        description = ""
        if prefix is not None:
            schema = {"type": "string", "pattern": id_pattern(prefix)}
            description = f"The id of the {_ID_NAMES[prefix]}."
        parameters.append(
            {
                "name": name,
                "in": "path",
                "required": True,
                "description": description or "As listed.",
                "schema": schema,
            }
        )
    if route.query is not None:
        parameters.extend(_query_parameters(queries[route.query.__name__]))
    if route.takes_idempotency_key:
        parameters.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The request is done once for each key; sent again within 24 hours "
                "it gets the first answer.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,256}$"},
            }
        )
    return parameters


def _query_parameters(whole: dict[str, Any]) -> list[dict[str, Any]]:
    parameters = []
    for name, given in whole["properties"].items():
        described = dict(given)
        description = described.pop("description", "")
        choices = [item for item in described.get("anyOf", ()) if item != {"type": "null"}]
        if len(choices) == 1:
            described = {**choices[0]}
            description = described.pop("description", description)
        if described.get("default", 0) is None:
            del described["default"]
        parameter = {
            "name": name,
            "in": "query",
            "required": name in whole.get("required", ()),
            "schema": described,
        }
        if description:
            parameter["description"] = description
        parameters.append(parameter)
    return parameters


def _responses(route: Route) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if route.scope is not None:
        headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _RATE_HEADERS}
    good: dict[str, Any] = {"description": "Done.", "headers": headers}
    if isinstance(route.answer, Media):
        good["description"] = route.answer.description
        good["content"] = {route.answer.media_type: {"schema": {"type": "string"}}}
    elif route.answer is not None:
        good["description"] = _first_line(route.answer)
        schema = {"$ref": _REF.format(name=route.answer.__name__)}
        good["content"] = {"application/json": {"schema": schema}}
    if not headers:
        del good["headers"]
    responses: dict[str, Any] = {str(route.status): good}
    for status, text in route.more_answers.items():
        responses[str(status)] = {"description": text}
    for status in route.problem_statuses:
        responses[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    return responses


def _first_line(kind: type) -> str:
    return re.split(r"\n\s*\n", (kind.__doc__ or "Done.").strip())[0].replace("\n", " ")


def _problem(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": TITLES[status] + ".",
        "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}},
    }
    if status == 307:
        answer["headers"] = {
            "Location": {
                "description": "The same request, where the key is at home.",
                "schema": {"type": "string"},
            }
        }
    if status in (429, 503):
        answer["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait.",
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return answer
