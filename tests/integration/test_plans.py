"""Plans: what a workspace may use, how it is told, and what the operator sees of all of them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from api_platform import Platform, start
from mail_platform import envelope

from mailyard.access.audit import Actor
from mailyard.access.plan import PlanBook, read_plans
from mailyard.access.usage import Allowance
from mailyard.core import ids
from mailyard.core.errors import ConfigurationError, QuotaExceeded
from mailyard.fleet.duties import counters
from mailyard.protocol.smtp.reply import Reply
from mailyard.receiving.accept import NO_MORE_TODAY, Acceptor
from mailyard.sending.allowance import Limits
from mailyard.sending.submission import _refusal
from mailyard.storage.database import Database

FILE = """
sign_up = "free"
currency = "EUR"
soft = 0.5

[plan.free]
inboxes = 3
messages_per_day = 4
sends_per_day = 3
requests_per_s = 50.0
retention_days = 7

[plan.team]
title = "Team"
price_per_month = 49.0

[plan.slow]
requests_per_s = 0.2

[plan.quiet]
live_connections = 0
"""


@pytest.fixture
async def platform(database: Database) -> AsyncIterator[Platform]:
    platform = await start(database, book=read_plans("plans.toml", FILE), with_pages=True)
    yield platform
    await platform.close()


async def tenant(platform: Platform, plan: str) -> tuple[str, str]:
    """A workspace with a plan: its id and a key of it."""
    workspace_id, key = await platform.other_workspace()
    name = ids.type_id(ids.WORKSPACE, workspace_id)
    given = await platform.call(
        "POST", "/v1/plans/assign", json={"workspace_id": name, "plan": plan}
    )
    assert given.json == {"workspace_id": name, "plan": plan}
    return name, key


async def count(platform: Platform, workspace: str, name: str, amount: int) -> None:
    """Count as ingest and delivery do, and fold as the scheduler does."""
    workspace_id = ids.parse_type_id(ids.WORKSPACE, workspace)
    async with platform.app.database.connection() as connection:
        await connection.execute(
            "INSERT INTO counter_delta (workspace_id, name, subject, minute, amount)"
            " VALUES ($1, $2, $1, date_trunc('minute', now()), $3)",
            workspace_id,
            name,
            amount,
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[plan.free]\ninboxes = -1", "inboxes"),
        ("[plan.free]\ninboxs = 1", "inboxs"),
        ("[plan.'Gr o ß']", "plan"),
        ("sign_up = 'x'\n[plan.free]", "sign_up is 'x'"),
        ("soft = 0.5", "plan"),
        ("[plan.free", "not TOML"),
    ],
)
def test_a_file_of_plans_that_cannot_be_says_why(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_plans("plans.toml", text)


async def test_inboxes_of_a_plan_are_counted_exactly_however_many_are_asked_for_at_once(
    platform: Platform,
) -> None:
    _, key = await tenant(platform, "free")
    made = await asyncio.gather(
        *(platform.call("POST", "/v1/inboxes", json={}, key=key) for _ in range(8))
    )
    assert sorted(one.status for one in made) == [201] * 3 + [402] * 5
    refused = next(one for one in made if one.status == 402)
    assert refused.json["code"] == "quota_exceeded"
    assert "3 inboxes at once" in refused.json["detail"]
    first = next(one for one in made if one.status == 201).json
    until = datetime.fromisoformat(first["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < until <= timedelta(days=7), "as long as the plan allows"
    path = f"/v1/inboxes/{first['id']}"
    for ttl_s in (None, 8 * 86_400, 7 * 86_400 + 5):
        longer = await platform.call("POST", f"{path}/extend", json={"ttl_s": ttl_s}, key=key)
        assert (longer.status, longer.json["field"]) == (402, "ttl_s")
    await platform.call("DELETE", path, key=key)
    again = await platform.call("POST", "/v1/inboxes", json={"ttl_s": 700_000}, key=key)
    assert (again.status, again.json["field"]) == (402, "ttl_s")
    assert (await platform.call("POST", "/v1/inboxes", json={}, key=key)).status == 201
    many = await platform.call("POST", "/v1/inboxes/batch", json={"inboxes": [{}] * 20})
    assert many.status == 201, "a workspace without a plan has no limits"


async def test_sends_of_a_plan_are_a_utc_days_whatever_clock_the_workspace_lives_by(
    platform: Platform,
) -> None:
    name, key = await tenant(platform, "free")
    mail = {"from": "a@b.example", "to": ["c@d.example"], "subject": "x", "text": "x"}
    for _ in range(3):
        assert (await platform.call("POST", "/v1/emails", json=mail, key=key)).status == 202
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"):
        change = {"time_zone": zone}
        await platform.call("PATCH", "/v1/workspace/limits", json=change, key=key)
        refused = await platform.call("POST", "/v1/emails", json=mail, key=key)
        assert (refused.status, refused.json["code"]) == (402, "quota_exceeded")
    used = (await platform.call("GET", "/v1/usage", key=key)).json
    sends = next(meter for meter in used["meters"] if meter["kind"] == "sends")
    assert (sends["used"], sends["limit"], sends["level"]) == (3, 3, "hard")
    workspace_id = ids.parse_type_id(ids.WORKSPACE, name)
    limits = await platform.app.allowances.read(workspace_id)
    assert limits == Limits(time_zone="UTC", plan_per_day=3)
    assert _refusal(QuotaExceeded("used up")) == Reply(452, "4.5.3", "used up")


async def test_a_workspace_that_had_its_mail_gets_no_more_and_is_told_what_it_used(
    platform: Platform, database: Database
) -> None:
    name, key = await tenant(platform, "free")
    inbox = (await platform.call("POST", "/v1/inboxes", json={}, key=key)).json
    other = (await platform.call("POST", "/v1/inboxes", json={})).json
    await count(platform, name, "received", 3)
    fold = counters.fold(database)
    allowance: Allowance = platform.app.allowance
    acceptor = Acceptor(
        database=database, engine=platform.app.engine, hostname="mx.test", allowance=allowance
    )
    peer = envelope(inbox["address"]).peer

    async def ask(address: str) -> Reply:
        answer = acceptor.accept_recipient(peer, "", address)
        return answer if isinstance(answer, Reply) else await answer

    for level, code in (("soft", 250), ("hard", 452)):
        before = (await platform.call("GET", "/v1/usage", key=key)).json
        await fold.do()
        used = (await platform.call("GET", "/v1/usage?days=2", key=key)).json
        assert used["meters"] == before["meters"], "folded or not"
        meter = next(one for one in used["meters"] if one["kind"] == "messages")
        assert meter["level"] == level
        acceptor._used_up = await allowance.used_up()
        assert (await ask(inbox["address"])).code == code
        assert (await ask(other["address"])).code == 250, "another's inboxes take mail"
        await count(platform, name, "received", 1)
    assert (await ask(inbox["address"])) == NO_MORE_TODAY
    assert [day["messages"] for day in used["days"]] == [0, 4]
    await acceptor.close()
    mbox = b"".join(b"From x Thu Jan  1 00:00:00 2026\nSubject: %d\n\nx\n\n" % n for n in range(5))
    path = f"/v1/inboxes/{inbox['id']}/import"
    as_mbox = {"content-type": "application/mbox"}
    brought = await platform.call("POST", path, body=mbox, headers=as_mbox, key=key)
    assert (brought.status, brought.json["code"]) == (402, "quota_exceeded")
    path = f"/v1/inboxes/{other['id']}/import"
    brought = await platform.call("POST", path, body=mbox, headers=as_mbox)
    assert (brought.status, brought.json["imported"]) == (200, 5)
    # A plan that is no longer in the file opens nothing: it counts as that of who signs up.
    plans = platform.app.plans
    plans.book = PlanBook({"free": plans.book.plans["free"]}, "free")
    async with database.connection() as connection:
        await connection.execute("UPDATE workspace SET plan = 'gone' WHERE plan = 'free'")
    workspace_id = ids.parse_type_id(ids.WORKSPACE, name)
    await plans._cache.change(workspace_id, ["plan"])
    assert (await plans.of(workspace_id)).inboxes == 3
    assert len(await allowance.used_up()) == 1


async def test_the_rate_of_a_plan_is_all_keys_of_a_workspace_together(platform: Platform) -> None:
    name, key = await tenant(platform, "slow")
    other = await platform.key_with(
        "stats:read", workspace_id=ids.parse_type_id(ids.WORKSPACE, name)
    )
    answers = [await platform.call("GET", "/v1/usage", key=one) for one in (key, other, key, other)]
    assert [one.status for one in answers] == [200, 200, 429, 429]
    assert int(answers[2].headers["retry-after"]) >= 1
    assert (await platform.call("GET", "/v1/usage")).status == 200


async def test_live_connections_of_a_plan_are_its_own(platform: Platform) -> None:
    _, key = await tenant(platform, "quiet")
    for one, status in ((key, 429), ("", 204)):
        inbox = (await platform.call("POST", "/v1/inboxes", json={}, key=one)).json["id"]
        waited = await platform.call("GET", f"/v1/inboxes/{inbox}/wait?timeout_s=0", key=one)
        assert waited.status == status
    assert (await platform.call("GET", "/v1/events", key=key)).status == 429


async def test_only_the_operator_gives_plans_and_sees_what_they_bring(
    platform: Platform, database: Database
) -> None:
    name, key = await tenant(platform, "team")
    await tenant(platform, "free")
    refused = await platform.call(
        "POST", "/v1/plans/assign", json={"workspace_id": name, "plan": ""}, key=key
    )
    assert refused.status == 403
    unknown = await platform.call(
        "POST", "/v1/plans/assign", json={"workspace_id": name, "plan": "x"}
    )
    assert (unknown.status, unknown.json["field"]) == (422, "plan")
    assert len((await platform.call("GET", "/v1/plans", key=key)).json["items"]) == 4
    plan = (await platform.call("GET", "/v1/usage", key=key)).json["plan"]
    assert (plan["title"], plan["price_per_month"], plan["inboxes"]) == ("Team", 49.0, None)
    await platform.call("POST", "/v1/inboxes", json={}, key=key)
    await count(platform, name, "delivery.accepted", 7)
    await counters.fold(database).do()
    assert b"business" not in (await platform.call("GET", "/metrics", key=None)).body
    assert (await platform.call("GET", "/metrics", key=key)).status == 403
    told = (await platform.call("GET", "/metrics")).body.decode()
    assert 'mailyard_business_monthly_recurring_revenue{currency="EUR"} 49' in told
    assert "mailyard_business_active_inboxes 1" in told
    assert 'mailyard_business_mails_today{direction="sent"} 7' in told
    assert 'mailyard_business_workspaces{plan="team"} 1' in told


async def test_without_plans_nobody_is_asked(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = await start(database)
    try:
        monkeypatch.setattr(platform.app.plans, "_name", None)  # whoever asks fails
        monkeypatch.setattr(platform.app.usage, "inboxes", None)
        assert (await platform.call("POST", "/v1/inboxes", json={})).status == 201
        mail = {"from": "a@b.example", "to": ["c@d.example"], "subject": "x", "text": "x"}
        assert (await platform.call("POST", "/v1/emails", json=mail)).status == 202
        acceptor = Acceptor(
            database=database,
            engine=platform.app.engine,
            hostname="mx.test",
            allowance=platform.app.allowance,
        )
        acceptor.start()
        assert acceptor._looking is None
    finally:
        await platform.close()


async def test_the_pages_of_usage_and_business(platform: Platform) -> None:
    app = platform.app
    session = await app.sessions.start(platform.first.user_id, platform.workspace_id, "browser")
    cookie = {"cookie": f"mailyard_session={session.token}"}
    usage = await platform.call("GET", "/usage", key=None, headers=cookie)
    assert (usage.status, b"No plan, no limits" in usage.body) == (200, True)
    business = await platform.call("GET", "/business", key=None, headers=cookie)
    assert (business.status, b"Monthly recurring revenue" in business.body) == (200, True)
    workspace = await app.workspaces.create("Other", actor_kind="system", actor_name="test")
    form = f"csrf={session.csrf_token}&plan=free&workspace=" + ids.type_id(
        ids.WORKSPACE, workspace.id
    )
    headers = {**cookie, "content-type": "application/x-www-form-urlencoded"}
    given = await platform.call(
        "POST", "/business/plan", key=None, headers=headers, body=form.encode()
    )
    assert given.status == 303
    assert await app.plans.name_of(workspace.id) == "free"
    # Somebody of another workspace sees its own plan, and nothing of the business.
    actor = Actor("command", "shell", workspace.id)
    user = await app.users.add(workspace.id, "x@example.org", "owner", actor=actor)
    theirs = await app.sessions.start(user.id, workspace.id, "browser")
    cookie = {"cookie": f"mailyard_session={theirs.token}"}
    assert b"Plan: free" in (await platform.call("GET", "/usage", key=None, headers=cookie)).body
    assert (await platform.call("GET", "/business", key=None, headers=cookie)).status == 403
