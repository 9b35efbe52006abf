"""Suppressions as files: good lines go in, bad ones are named, and none runs in a spreadsheet."""

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_platform import Platform, Reply, start

from mailyard.storage.database import Database


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database)
    yield platform
    await platform.close()


async def bring_in(platform: Platform, text: str | bytes, query: str = "") -> Reply:
    body = text if isinstance(text, bytes) else text.encode()
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]  # as a network cuts it
    return await platform.call(
        "POST",
        f"/v1/suppressions/import{query}",
        body=body,
        pieces=pieces,
        headers={"content-type": "text/csv"},
    )


async def listed(platform: Platform, query: str = "") -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await platform.call("GET", f"/v1/suppressions{query}")).json[
        "items"
    ]
    return items


async def test_good_lines_go_in_and_each_bad_one_is_named(platform: Platform) -> None:
    text = (
        "Email Address;Reason;Description;Stream\r\n"
        "Ada@Example.com;Hard Bounce;550 5.1.1 User unknown;\r\n"
        "not an address;bounce;;\r\n"
        "\r\n"
        'bob@example.com;spam complaint;"he; said ""no""";campaign\r\n'
        "carol@example.com;because;;\r\n"
        "dan@example.com;;;newsletter\r\n"
        ";bounce;;\r\n"
        "eve@bücher.example;unsubscribed;;campaign"
    )
    reply = await bring_in(platform, "\ufeff" + text, "?file_name=old.csv&reason=by_hand")
    assert reply.status == 200, reply.body
    told = reply.json
    assert (told["added"], told["stood"], told["rejected"]) == (3, 0, 4)
    assert [error["line"] for error in told["errors"]] == [3, 6, 7, 8]
    assert "hard_bounce" in told["errors"][1]["reason"], "what is allowed is said"
    assert told["errors"][0]["text"].startswith("not an address")
    assert {(one["address"], one["reason"], one["stream"], one["evidence"])
            for one in await listed(platform)} == {
        ("ada@example.com", "hard_bounce", "all", "550 5.1.1 User unknown"),
        ("bob@example.com", "complaint", "campaign", 'he; said "no"'),
        ("eve@xn--bcher-kva.example", "unsubscribed", "campaign", ""),
    }  # fmt: skip
    assert {one["source"] for one in await listed(platform)} == {"old.csv"}
    again = (await bring_in(platform, text)).json
    assert (again["added"], again["stood"]) == (0, 3)
    only = await listed(platform, "?reason=complaint&stream=campaign")
    assert [one["address"] for one in only] == ["bob@example.com"]


async def test_a_list_of_addresses_needs_no_header_and_may_be_long(platform: Platform) -> None:
    lines = [f"person{number}@example.com" for number in range(4_500)]
    reply = await bring_in(platform, "\n".join(lines), "?stream=campaign&reason=unsubscribed")
    assert reply.json["added"] == 4_500
    nothing = await bring_in(platform, "no,addresses,here\nada@example.com\n")
    assert (nothing.status, nothing.json["field"]) == (422, "file")
    too_long = await bring_in(platform, "address\n" + "x" * 40_000 + "\nada@example.com\n")
    assert (too_long.json["added"], too_long.json["rejected"]) == (1, 1)
    exported = await platform.call("GET", "/v1/suppressions/export.csv")
    assert len(exported.body.splitlines()) == 4_502


async def test_what_is_exported_runs_in_no_spreadsheet_and_comes_back_as_it_was(
    platform: Platform,
) -> None:
    for address, evidence in (("=cmd@example.com", "=1+1"), ("+1@example.com", "@SUM(A1)")):
        body = {"address": address, "evidence": evidence, "reason": "complaint"}
        made = await platform.call("POST", "/v1/suppressions", json=body)
        assert made.status == 201, made.body
    exported = await platform.call("GET", "/v1/suppressions/export.csv")
    assert exported.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(exported.body.decode())))
    assert {row["address"] for row in rows} == {"'=cmd@example.com", "'+1@example.com"}
    assert not any(cell[:1] in tuple("=+-@") for row in rows for cell in row.values())
    _, other = await platform.other_workspace()
    assert len((await platform.call("GET", "/v1/suppressions/export.csv", key=other)).body) < 80
    before = await listed(platform)
    for one in before:
        await platform.call("DELETE", f"/v1/suppressions/{one['id']}")
    assert (await bring_in(platform, exported.body)).json["added"] == 2
    marks = ("address", "stream", "reason", "evidence")
    assert sorted([one[mark] for mark in marks] for one in await listed(platform)) == sorted(
        [one[mark] for mark in marks] for one in before
    )
