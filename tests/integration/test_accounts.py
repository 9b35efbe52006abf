"""People who come in by themselves: sign-up, invitations, forgotten passwords; and hostile ones."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from urllib.parse import urlencode

import pytest
from api_platform import Platform, Reply, start

from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.access.letter import Letter, invitation, quoted
from mailyard.access.limit_notice import LimitNotices
from mailyard.access.plan import read_plans
from mailyard.core import ids
from mailyard.core.errors import Conflict, NotAllowed, RateLimited
from mailyard.queue.batch import Batch
from mailyard.queue.job import EMAIL_SEND
from mailyard.queue.settle import Settler
from mailyard.sending.own import post_letter
from mailyard.settings import Settings
from mailyard.storage.database import Database

BOOK = read_plans("plans.toml", "[plan.free]\ninboxes = 3\nmessages_per_day = 10")
PASSWORD = "correct horse battery"
OTHER = "another horse battery"
_FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database, book=BOOK, with_pages=True, sign_up=True)
    yield platform
    await platform.close()


async def letters(platform: Platform) -> list[Letter]:
    """What the worker writes of what was asked."""
    written: list[Letter] = platform.app.letters
    before = len(written)
    jobs = await platform.app.engine.lease([EMAIL_SEND], 50, 0.0, "test")
    settler = Settler(platform.app.engine)
    for job in jobs:
        batch = Batch([job], settler, asyncio.Event())
        await platform.app.accounts.handler().handle(batch)
        await batch.complete([job])
    return written[before:]


def link_of(letter: Letter) -> str:
    """The path of the link in a letter."""
    found = re.findall(r"https://mail\.example\.org(/\S+)", letter.text)
    assert len(found) == 1, letter.text
    return str(found[0])


async def post(platform: Platform, path: str, cookie: str = "", **fields: str) -> Reply:
    headers = {**_FORM, **({"cookie": f"{SESSION_COOKIE}={cookie}"} if cookie else {})}
    return await platform.call(
        "POST", path, key=None, headers=headers, body=urlencode(fields).encode()
    )


def cookie_of(reply: Reply) -> str:
    """The session that an answer starts."""
    assert reply.status == 303, reply.body[-600:]
    return reply.headers["set-cookie"].partition("=")[2].partition(";")[0]


async def page(platform: Platform, path: str, cookie: str = "") -> Reply:
    headers = {"cookie": f"{SESSION_COOKIE}={cookie}"} if cookie else {}
    return await platform.call("GET", path, key=None, headers=headers)


async def sign_up(platform: Platform, email: str, password: str = PASSWORD) -> str:
    """Come in with a workspace of one's own; the session."""
    await post(platform, "/sign-up", email=email)
    (letter,) = await letters(platform)
    path = link_of(letter)
    assert (await page(platform, path)).status == 200
    assert (await page(platform, path)).status == 200, "a look spends nothing"
    reply = await post(platform, path, password=password, workspace="Ada's shop")
    return cookie_of(reply)


async def test_who_signs_up_gets_a_workspace_with_the_plan_for_it(platform: Platform) -> None:
    cookie = await sign_up(platform, "Ada@Example.org")
    usage = await page(platform, "/usage", cookie)
    assert b"Plan: free" in usage.body
    assert b"Ada&#39;s shop" in usage.body
    assert (await page(platform, "/business", cookie)).status == 403
    figures = await platform.app.business.figures()
    assert (figures.signed_up, figures.today.sign_ups, figures.by_plan["free"]) == (1, 1, 1)
    user = await platform.app.users.authenticate("ada@example.org", PASSWORD)
    assert user is not None


async def test_what_is_answered_does_not_tell_who_has_an_account(platform: Platform) -> None:
    await sign_up(platform, "ada@example.org")
    for path, told in (("/reset", 1), ("/sign-up", 2)):
        known = await post(platform, path, email="ada@example.org")
        stranger = await post(platform, path, email="eve@example.org")
        assert (known.status, known.body) == (stranger.status, stranger.body)
        written = await letters(platform)
        assert len(written) == told, "a stranger's address gets a way to sign up, and no reset"
    assert written[0].subject == "You have an account at Mailyard"
    assert "/sign-up/" not in written[0].text
    for _ in range(3):
        reply = await post(platform, "/reset", email="eve@example.org")
    assert (reply.status, (await post(platform, "/reset", email="eve@example.org")).status) == (
        200,
        429,
    )
    other = await platform.app.accounts.ask_reset("zoe@example.org", "127.0.0.1")
    assert other is None, "one address that is asked for too often stops no other"
    with pytest.raises(RateLimited):
        for number in range(40):
            await platform.app.accounts.ask_reset(f"x{number}@example.org", "8.8.8.8")


async def test_a_new_password_ends_every_other_way_in_and_is_told(platform: Platform) -> None:
    old = await sign_up(platform, "ada@example.org")
    await post(platform, "/reset", email="ada@example.org")
    await post(platform, "/reset", email="ada@example.org")
    first, second = await letters(platform)
    path = link_of(first)
    short = await post(platform, path, password="short")
    assert (short.status, b"10 to 256" in short.body) == (422, True)
    new = cookie_of(await post(platform, path, password=OTHER))
    assert (await page(platform, "/account", new)).status == 200
    assert (await page(platform, "/account", old)).status == 303, "signed out"
    for spent in (path, link_of(second)):
        assert (await page(platform, spent)).status == 404, "also the one that was not used"
        assert (await post(platform, spent, password=OTHER)).status == 404
    users = platform.app.users
    assert await users.authenticate("ada@example.org", PASSWORD) is None
    assert await users.authenticate("ada@example.org", OTHER) is not None
    (told,) = await letters(platform)
    assert told.subject == "Your password was changed"
    async with platform.app.database.connection() as connection:
        rows = await connection.fetch("SELECT account_link::text AS row FROM account_link")
        stored = " ".join(row["row"] for row in rows)
    assert path.rpartition("/")[2] not in stored


async def test_an_old_link_and_one_of_another_kind_open_nothing(platform: Platform) -> None:
    await post(platform, "/sign-up", email="ada@example.org")
    (letter,) = await letters(platform)
    token = link_of(letter).rpartition("/")[2]
    assert (await page(platform, f"/reset/{token}")).status == 404
    assert (await page(platform, f"/invitation/{token}")).status == 404
    async with platform.app.database.connection() as connection:
        await connection.execute("UPDATE account_link SET expires_at = now()")
    reply = await post(platform, f"/sign-up/{token}", password=PASSWORD, workspace="x")
    assert reply.status == 404
    assert await platform.app.users.authenticate("ada@example.org", PASSWORD) is None


async def test_of_two_who_use_one_link_at_once_one_comes_in(platform: Platform) -> None:
    await post(platform, "/sign-up", email="ada@example.org")
    (letter,) = await letters(platform)
    token = link_of(letter).rpartition("/")[2]
    tries = await asyncio.gather(
        *(platform.app.accounts.sign_up(token, PASSWORD, "shop") for _ in range(3)),
        return_exceptions=True,
    )
    assert sum(not isinstance(one, Exception) for one in tries) == 1
    async with platform.app.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM workspace") == 2


async def test_who_is_asked_in_comes_in_and_whoever_made_the_account_before_does_not(
    platform: Platform,
) -> None:
    # Eve has a workspace, adds Bob to it without asking him, and takes his account over.
    _, eves = await platform.other_workspace()
    taken = (
        await platform.call(
            "POST", "/v1/members", json={"email": "bob@example.org", "role": "owner"}, key=eves
        )
    ).json
    link = (await platform.call("POST", f"/v1/members/{taken['id']}/link", key=eves)).json["path"]
    eve = cookie_of(await post(platform, link))
    csrf = re.findall(
        r'name="csrf" value="([^"]+)"', (await page(platform, "/access", eve)).body.decode()
    )[0]
    await post(platform, "/access/password", eve, csrf=csrf, password=OTHER)
    again = await platform.call("POST", f"/v1/members/{taken['id']}/link", key=eves)
    # Bob is asked into the first workspace, and takes it up with a password of his own.
    asked = await platform.call(
        "POST", "/v1/invitations", json={"email": "bob@example.org", "role": "member"}
    )
    assert asked.status == 201
    (letter,) = await letters(platform)
    path = link_of(letter)
    assert b"Join Main" in (await page(platform, path)).body
    without = await post(platform, path)
    assert without.status == 422, "the account's password is Eve's: he needs one of his own"
    bob = cookie_of(await post(platform, path, password=PASSWORD))
    assert b"Main \xc2\xb7 member" in (await page(platform, "/account", bob)).body
    for ended in (eve, cookie_of_or_none(await post(platform, again.json["path"]))):
        assert (await page(platform, "/account", ended)).status == 303
    assert await platform.app.users.authenticate("bob@example.org", OTHER) is None
    assert (await platform.call("GET", "/v1/invitations")).json["items"] == []
    assert (await page(platform, path)).status == 404
    repeated = await platform.call(
        "POST", "/v1/invitations", json={"email": "bob@example.org", "role": "owner"}
    )
    assert repeated.status == 409


def cookie_of_or_none(reply: Reply) -> str:
    """The session that an answer starts, if it does."""
    return cookie_of(reply) if reply.status == 303 else "none"


async def test_an_invitation_can_be_taken_back_and_who_has_an_account_keeps_its_password(
    platform: Platform,
) -> None:
    ada = await sign_up(platform, "ada@example.org")
    body = {"email": "ada@example.org", "role": "viewer"}
    first = (await platform.call("POST", "/v1/invitations", json=body)).json
    (letter,) = await letters(platform)
    again = (await platform.call("POST", "/v1/invitations", json=body)).json
    assert again["id"] == first["id"]
    (newer,) = await letters(platform)
    assert (await page(platform, link_of(letter))).status == 404, "only the newest leads anywhere"
    await platform.call("DELETE", f"/v1/invitations/{first['id']}")
    assert (await page(platform, link_of(newer))).status == 404
    await platform.call("POST", "/v1/invitations", json=body)
    (newest,) = await letters(platform)
    assert b"password" not in (await page(platform, link_of(newest))).body
    there = cookie_of(await post(platform, link_of(newest)))
    account = (await page(platform, "/account", there)).body.decode()
    assert "Main · viewer" in account
    assert await platform.app.users.authenticate("ada@example.org", PASSWORD) is not None
    assert (await page(platform, "/account", ada)).status == 200, "nothing of hers has ended"
    # She goes back to her own workspace, and ends her other session.
    csrf = re.findall(r'name="csrf" value="([^"]+)"', account)[0]
    own = re.findall(r'name="workspace" value="(wsp_\w+)"', account)[0]
    moved = await post(platform, "/account/workspace", there, csrf=csrf, workspace=own)
    assert moved.status == 303
    assert "Ada&#39;s shop · owner" in (await page(platform, "/account", there)).body.decode()
    (other,) = re.findall(r"/account/sessions/(\w+)/end", account)
    ended = await post(platform, f"/account/sessions/{other}/end", there, csrf=csrf)
    assert ended.status == 303
    assert (await page(platform, "/account", ada)).status == 303
    known = {"email": "ada@example.org", "password": PASSWORD}
    more = [cookie_of(await post(platform, "/sign-in", **known)) for _ in range(2)]
    await post(platform, "/account/sessions/end", there, csrf=csrf)
    assert [(await page(platform, "/account", one)).status for one in more] == [303, 303]
    assert (await page(platform, "/account", there)).status == 200
    strange = ids.type_id(ids.WORKSPACE, (await platform.other_workspace())[0])
    refused = await post(platform, "/account/workspace", there, csrf=csrf, workspace=strange)
    assert refused.status == 404


async def test_sign_up_is_off_unless_it_is_asked_for(platform: Platform) -> None:
    await post(platform, "/sign-up", email="ada@example.org")
    (letter,) = await letters(platform)
    platform.app.accounts.may_sign_up = False
    platform.app.settings = replace(platform.app.settings, sign_up=False)
    assert (await page(platform, "/sign-up")).status == 403
    assert (await post(platform, "/sign-up", email="ada@example.org")).status == 403
    with pytest.raises(NotAllowed):
        await platform.app.accounts.sign_up(link_of(letter).rpartition("/")[2], PASSWORD, "x")
    assert Settings().sign_up is False


async def test_a_letter_is_sent_once_and_what_it_opens_is_shown_to_nobody(
    platform: Platform,
) -> None:
    app = platform.app
    letter = Letter("ada@example.org", "A new password", "https://mail.example.org/reset/SECRET")
    for _ in range(2):
        await post_letter(app.emails, platform.workspace_id, "M <m@example.org>", letter, "k1")
    bad = Letter("not an address", "x", "x")
    await post_letter(app.emails, platform.workspace_id, "M <m@example.org>", bad, "k2")
    (item,) = (await platform.call("GET", "/v1/emails")).json["items"]
    shown = await platform.call("GET", f"/v1/emails/{item['id']}")
    assert shown.json["headers"] == {"Auto-Submitted": "auto-generated"}
    assert b"SECRET" not in shown.body
    delivery = (await platform.call("GET", "/v1/deliveries")).json["items"][0]["id"]
    session = await app.sessions.start(platform.first.user_id, platform.workspace_id, "browser")
    for path in (f"/deliveries/{delivery}", "/audit", "/deliveries"):
        assert b"SECRET" not in (await page(platform, path, session.token)).body


def test_a_workspace_s_name_makes_no_link_in_a_letter() -> None:
    assert quoted("Free pills https://evil.example/x?a") == "Free pills https evil example x a"
    letter = invitation(
        "a@b.example", "https://m/x", workspace="www.evil.example", role="owner", by="key_1", days=7
    )
    assert "evil.example" not in letter.text
    assert letter.text.startswith("Hello,\n\nSomebody asks you")


async def test_owners_are_told_once_a_day_that_a_limit_is_near_and_that_it_is_reached(
    platform: Platform, database: Database
) -> None:
    await sign_up(platform, "ada@example.org")
    notices: LimitNotices = platform.app.limit_notices
    told = []
    for amount in (7, 8, 9, 10, 11):
        async with database.connection() as connection:
            await connection.execute(
                "INSERT INTO usage_day SELECT (now() AT TIME ZONE 'UTC')::date, id, 'messages', $1"
                " FROM workspace WHERE plan = 'free'"
                " ON CONFLICT (day, workspace_id, kind) DO UPDATE SET amount = excluded.amount",
                amount,
            )
        await notices.look()
        told.append([letter.subject for letter in await letters(platform)])
    near, used_up = (
        "The plan's mails received of the day are nearly used up",
        "The plan's mails received of the day are used up",
    )
    assert told == [[], [near], [], [used_up], []]


async def test_an_account_that_came_meanwhile_is_not_made_again(platform: Platform) -> None:
    await post(platform, "/sign-up", email="ada@example.org")
    await post(platform, "/sign-up", email="ada@example.org")
    first, second = await letters(platform)
    await post(platform, link_of(first), password=PASSWORD, workspace="one")
    token = link_of(second).rpartition("/")[2]
    assert await platform.app.accounts.linked("sign_up", token) is None, "it went with the first"
    await platform.app.database.execute(
        "INSERT INTO account_link VALUES ($1, 'sign_up', 'ada@example.org', now() + '1 h', NULL)",
        sha256(b"t").digest(),
    )
    with pytest.raises(Conflict):
        await platform.app.accounts.sign_up("t", OTHER, "two")
    assert await platform.app.users.authenticate("ada@example.org", PASSWORD) is not None
