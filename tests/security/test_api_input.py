"""Hostile input to the API: each ends in a problem document that names what is wrong."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_platform import Platform, start

from mailyard.core import limits
from mailyard.storage.database import Database
from mailyard.web.api.route import SMALL_BODY_BYTES

EMAIL: dict[str, Any] = {
    "from": "a@example.org",
    "to": ["b@example.org"],
    "subject": "s",
    "text": "t",
}
JSON = {"content-type": "application/json"}


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


def _is_problem(reply: Any, status: int, code: str, field: str | None = None) -> None:
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem.get("field") == field, problem
    assert problem["type"].endswith(code.replace("_", "-"))
    assert problem["request_id"] == reply.headers["x-request-id"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"to": "b@example.org"}, "to"),
        ({"to": [5]}, "to.0"),
        ({"subject": None}, "subject"),
        ({"headers": {"X-A": 1}}, "headers"),
        ({"attachments": [{"filename": "a", "content": "?"}]}, "attachments.0.content"),
        ({"attachments": [{"filename": "a"}]}, "attachments.0.content"),
        ({"send_at": "tomorrow"}, "send_at"),
        ({"send_at": "2026-12-01T00:00:00"}, "send_at"),
        ({"type": "UPPER"}, "type"),
        ({"subjct": "misspelled"}, "subjct"),
        ({"from": "nobody"}, "from"),
        ({"to": []}, "to"),
        ({"to": ["b@example.org"] * 101}, "to"),
        ({"data": {"a": 1}}, "data"),
    ],
)
async def test_a_wrong_value_is_named(
    platform: Platform, change: dict[str, Any], field: str
) -> None:
    reply = await platform.call("POST", "/v1/emails", json={**EMAIL, **change})
    _is_problem(reply, 422, "invalid_input", field)


async def test_a_number_in_quotes_is_no_number(platform: Platform) -> None:
    reply = await platform.call("POST", "/v1/demos", json={"recipients": "5"})
    _is_problem(reply, 422, "invalid_input", "recipients")


@pytest.mark.parametrize("breaking", ["\r\nBcc: x@example.org", "\nX: y", "\r", "\0"])
@pytest.mark.parametrize(
    "place",
    ["from", "to", "cc", "bcc", "reply_to", "subject", "header", "filename", "content_id"],
)
async def test_no_line_break_gets_into_a_header(
    platform: Platform, place: str, breaking: str
) -> None:
    email = dict(EMAIL)
    if place in ("from", "subject"):
        email[place] = f"a@example.org{breaking}"
    elif place == "header":
        email["headers"] = {"X-Custom": f"value{breaking}"}
    elif place in ("filename", "content_id"):
        attachment = {"filename": "a.txt", "content": "YQ==", "content_id": "a"}
        email["attachments"] = [{**attachment, place: f"a{breaking}"}]
    else:
        email[place] = [f"b@example.org{breaking}"]
    reply = await platform.call("POST", "/v1/emails", json=email)
    assert (reply.status, reply.json["code"]) == (422, "invalid_input"), reply.body
    assert (await platform.call("GET", "/v1/emails")).json["items"] == []


@pytest.mark.parametrize("name", ["X:Y", "X Y", "", "X\r\nY", "Bcc", "From", "X" * 77])
async def test_no_header_name_of_the_callers_own_breaks_out(platform: Platform, name: str) -> None:
    reply = await platform.call("POST", "/v1/emails", json={**EMAIL, "headers": {name: "v"}})
    assert reply.status == 422


async def test_headers_are_counted(platform: Platform) -> None:
    headers = {f"X-{n}": "v" for n in range(limits.HEADERS_PER_EMAIL + 1)}
    reply = await platform.call("POST", "/v1/emails", json={**EMAIL, "headers": headers})
    _is_problem(reply, 422, "invalid_input", "headers")


async def test_a_templates_data_breaks_no_subject(platform: Platform) -> None:
    parts = {"name": "t", "subject": "Hello {{ name }}", "text": "t"}
    made = await platform.call("POST", "/v1/templates", json=parts)
    email = {"from": "a@b.example", "to": ["c@d.example"], "template": made.json["id"]}
    data = {"name": "a\r\nBcc: x@example.org"}
    reply = await platform.call("POST", "/v1/emails", json={**email, "data": data})
    assert reply.status == 202
    stored = await platform.call("GET", f"/v1/emails/{reply.json['id']}")
    assert not {"\r", "\n"} & set(stored.json["subject"])


@pytest.mark.parametrize("place", ["campaign from", "campaign reply_to", "contact"])
async def test_no_line_break_is_stored_where_a_campaign_would_find_it(
    platform: Platform, place: str
) -> None:
    call = platform.call
    broken = "a@example.org\r\nBcc: x@example.org"
    if place == "contact":
        reply = await call("POST", "/v1/contacts", json={"address": "a@b.example", "name": "a\nb"})
    else:
        field = place.split()[1]
        lst = await call("POST", "/v1/lists", json={"name": "l"})
        tpl = await call("POST", "/v1/templates", json={"name": "t", "subject": "s", "text": "t"})
        campaign = {
            "name": "c",
            "list": lst.json["id"],
            "template": tpl.json["id"],
            "from": "a@b.example",
            field: broken,
        }
        reply = await call("POST", "/v1/campaigns", json=campaign)
    assert reply.status == 422, reply.body


async def test_malformed_json_is_400(platform: Platform) -> None:
    for body in (
        b"{",
        b"",
        b"nonsense",
        b'{"from":"\xff\xfe"}',
        b"\xef\xbb\xbf{}",
    ):
        reply = await platform.call("POST", "/v1/emails", body=body, headers=JSON)
        _is_problem(reply, 400, "malformed_request")


async def test_invalid_utf8_is_said_to_be_that(platform: Platform) -> None:
    body = json.dumps(EMAIL).encode().replace(b'"s"', b'"\xc3\x28"')
    reply = await platform.call("POST", "/v1/emails", body=body, headers=JSON)
    _is_problem(reply, 400, "malformed_request")
    assert "UTF-8" in reply.json["detail"]


async def test_lone_surrogates_and_nul_do_not_reach_the_database(platform: Platform) -> None:
    for text in (rb"\ud800", rb"\u0000", rb"\\\u0000"):
        body = b'{"name":"%b"}' % text
        reply = await platform.call("POST", "/v1/lists", body=body, headers=JSON)
        assert reply.status in (400, 422), reply.body
    escaped = await platform.call("POST", "/v1/lists", body=rb'{"name":"\\u0000"}', headers=JSON)
    assert escaped.status == 201
    reply = await platform.call("GET", "/v1/contacts?search=%00")
    _is_problem(reply, 422, "invalid_input", "search")
    reply = await platform.call("GET", "/v1/contacts?search=%ff")
    _is_problem(reply, 400, "malformed_request")


@pytest.mark.parametrize("depth", [limits.API_JSON_DEPTH + 1, 900, 100_000])
async def test_json_that_is_too_deep_is_refused(platform: Platform, depth: int) -> None:
    deep = b'{"data":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    made = await platform.call(
        "POST", "/v1/templates", json={"name": "t", "subject": "s", "text": "t"}
    )
    preview = f"/v1/templates/{made.json['id']}/preview"
    reply = await platform.call("POST", preview, body=deep, headers=JSON)
    assert reply.status in (400, 422), reply.body
    arrays = b'{"from":' + b"[" * depth + b"]" * depth + b"}"
    reply = await platform.call("POST", "/v1/emails", body=arrays, headers=JSON)
    assert reply.status in (400, 422)


async def test_a_body_past_its_limit_is_413_and_is_not_read(platform: Platform) -> None:
    declared = {**JSON, "content-length": str(SMALL_BODY_BYTES + 1)}
    reply = await platform.call("POST", "/v1/lists", body=b"{}", headers=declared)
    _is_problem(reply, 413, "too_large")
    pieces = [b"x" * 65_536] * (SMALL_BODY_BYTES // 65_536 + 2)
    reply = await platform.call("POST", "/v1/lists", headers=JSON, pieces=pieces)
    _is_problem(reply, 413, "too_large")


async def test_another_media_type_is_415(platform: Platform) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"):
        reply = await platform.call(
            "POST", "/v1/lists", body=b'{"name":"x"}', headers={"content-type": kind}
        )
        _is_problem(reply, 415, "unsupported_media_type")
    reply = await platform.call(
        "POST", "/v1/imports", body=b"email\n", headers={"content-type": "image/png"}
    )
    _is_problem(reply, 415, "unsupported_media_type")


async def test_unknown_paths_and_methods_are_problems_too(platform: Platform) -> None:
    _is_problem(await platform.call("GET", "/v1/nothing"), 404, "not_found")
    _is_problem(await platform.call("GET", "/v1"), 404, "not_found")
    reply = await platform.call("DELETE", "/v1/emails")
    _is_problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    for path in ("/health/live", "/docs", "/v1/openapi.json"):
        reply = await platform.call("POST", path)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_head_and_options_are_sane(platform: Platform) -> None:
    whole = await platform.call("GET", "/v1/inboxes")
    head = await platform.call("HEAD", "/v1/inboxes")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.body))
    options = await platform.call("OPTIONS", "/v1/inboxes", key=None)
    assert (options.status, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    assert not [name for name in options.headers if name.startswith("access-control")]


async def test_query_parameters_are_checked(platform: Platform) -> None:
    for query, field in (
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("cursor=x", "cursor"),
        ("limit=1&limit=2", "limit"),
        ("lable=x", "lable"),
    ):
        reply = await platform.call("GET", f"/v1/inboxes?{query}")
        _is_problem(reply, 422, "invalid_input", field)
    reply = await platform.call("GET", "/v1/inboxes/ibx_nonsense")
    _is_problem(reply, 422, "invalid_input", "inbox_id")


@pytest.mark.parametrize("key", ["", "x" * 257, "a\x7f", "é"])
async def test_an_idempotency_key_is_short_and_printable(platform: Platform, key: str) -> None:
    reply = await platform.call("POST", "/v1/emails", json=EMAIL, headers={"idempotency-key": key})
    _is_problem(reply, 422, "invalid_input", "Idempotency-Key")


async def test_nothing_of_an_internal_error_is_told(platform: Platform) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("the secret is swordfish")

    platform.app.inboxes.list = broken
    reply = await platform.call("GET", "/v1/inboxes")
    _is_problem(reply, 500, "internal_error")
    assert b"swordfish" not in reply.body


async def test_every_answer_is_data_and_nothing_a_browser_would_run(platform: Platform) -> None:
    for path in ("/v1/inboxes", "/v1/nothing", "/health/live", "/v1/openapi.json"):
        headers = (await platform.call("GET", path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")


async def test_the_request_id_is_the_callers_when_it_is_harmless(platform: Platform) -> None:
    reply = await platform.call("GET", "/v1/inboxes", headers={"x-request-id": "abc-1"})
    assert reply.headers["x-request-id"] == "abc-1"
    reply = await platform.call("GET", "/v1/inboxes", headers={"x-request-id": "a b\tc"})
    assert reply.headers["x-request-id"] != "a b\tc"
