"""Two regions with 80 ms each way between them: what each does with what is at home in the other,
and what the loss of one costs.
"""

import asyncio
import json
import smtplib
from pathlib import Path

import aiohttp
import pytest
from region_world import EU, US, Regions, lose_and_take_over, send_far, two_regions
from running_platform import wait_until

from mailyard.core.errors import Unavailable
from mailyard.proving.client import ApiClient, ApiProblem

pytestmark = pytest.mark.timeout(900)

MAILS = 300
PATIENCE_S = 60.0


async def test_two_regions_and_the_loss_of_one(tmp_path: Path) -> None:
    with two_regions(tmp_path) as world:
        try:
            for region in (EU, US):
                await world.start(region, world.primaries[region], region)
            await what_is_at_home_elsewhere_is_told_where(world)
            await a_workspace_has_a_home(world)
            for sender, receiver in ((EU, US), (US, EU)):
                seconds = await send_far(world, sender, receiver)
                print(f"from {sender} into an inbox of {receiver}: {seconds:.2f} s")
            await a_copy_that_stops_is_told_of(world)
            mails = await large_mails(world)
            refused = world.command(US, "region", "take-over", EU)
            assert refused.returncode != 0 and "answers at 127.0.0.1: stop it" in refused.stderr
            old = world.stacks[EU].platform
            outcome = await lose_and_take_over(world, mails=MAILS, synchronous=False)
            print(
                f"{outcome.promises} promises, {outcome.lost} lost, of the last "
                f"{1000 * outcome.window_s:.0f} ms; taken over after {outcome.decided_s:.1f} s, "
                f"mail is taken again after {outcome.back_s:.1f} s"
            )
            assert outcome.findings.twice == []
            assert outcome.lost_of_the_copied == 0, "what had arrived is there"
            assert outcome.told["term"] == 1 and outcome.told["region"] == EU
            await the_log_says_who_took_over(world)
            await their_blobs_are_read_as_they_come(world, *mails)
            world.primaries[EU].start()  # the lost site comes back, and does not know
            with pytest.raises(Unavailable, match="taken over by site us"):
                await old.start()
        finally:
            for stack in world.stacks.values():
                await stack.platform.stop()


async def the_log_says_who_took_over(world: Regions) -> None:
    us = world.stacks[US].address
    client = ApiClient(us.url, us.api_key)
    [entry] = (await client.get("/v1/audit", action="region.take_over"))["items"]
    await client.close()
    assert (entry["actor_kind"], entry["subject"]) == ("command", EU)
    assert (entry["after"]["term"], entry["after"]["site"]) == (1, US)


async def what_is_at_home_elsewhere_is_told_where(world: Regions) -> None:
    eu, us = world.stacks[EU].address, world.stacks[US].address
    client = ApiClient(eu.url, eu.api_key)
    inbox = await client.post("/v1/inboxes", {"address": "home"})
    await client.post("/v1/receiving-domains", {"name": "proved.example"})
    world.primaries[EU].sql("UPDATE receiving_domain SET proved_at = now()")
    await client.close()
    headers = {"authorization": f"Bearer {eu.api_key}"}
    async with (
        aiohttp.ClientSession(us.url, headers=headers) as session,
        session.get("/v1/inboxes?limit=5", allow_redirects=False) as answer,
    ):
        assert (answer.status, answer.headers["mailyard-region"]) == (307, EU)
        assert answer.headers["location"] == f"{eu.url}/v1/inboxes?limit=5"
        assert (await answer.json())["code"] == "at_home_elsewhere"
    # A client that keeps its key on the way (as is its choice) is served there.
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.get(answer.headers["location"]) as answer,
    ):
        assert answer.status == 200
    stranger = ApiClient(us.url, eu.api_key[:-1] + ("0" if eu.api_key[-1] != "0" else "1"))
    with pytest.raises(ApiProblem) as problem:
        await stranger.get("/v1/inboxes")
    assert problem.value.status == 401
    await stranger.close()
    with smtplib.SMTP(us.smtp_host, us.smtp_port, timeout=30) as smtp:
        smtp.ehlo("a.example")
        smtp.mail("a@b.example")
        assert smtp.rcpt(inbox["address"]) == (
            451,
            b"4.4.4 At home in region eu: its mail servers are mx.eu.test",
        )
        proved = "SELECT count(*) FROM receiving_domain WHERE proved_at IS NOT NULL"
        await asyncio.to_thread(wait_until, lambda: world.copies[EU].sql(proved) == "1")
        assert smtp.rcpt("ada@proved.example")[0] == 451, "as the copy of its database says"
        assert smtp.rcpt("whoever@eu.localhost")[0] == 451, "eu says who is there"
        assert smtp.rcpt("nobody@us.localhost")[0] == 550
    with smtplib.SMTP(eu.smtp_host, eu.smtp_port, timeout=30) as smtp:
        smtp.sendmail("a@b.example", [inbox["address"]], "Subject: home\r\n\r\nx\r\n")


async def a_workspace_has_a_home(world: Regions) -> None:
    eu, us = world.stacks[EU].address, world.stacks[US].address
    client = ApiClient(us.url, us.api_key)
    assert (await client.get("/v1/workspace"))["region"] == US
    made = await client.post("/v1/workspaces", {"name": "Second", "region": US})
    assert made["region"] == US
    with pytest.raises(ApiProblem, match=f"at home in region eu: ask {eu.url}"):
        await client.post("/v1/workspaces", {"name": "Third", "region": EU})
    with pytest.raises(ApiProblem, match="there is no region 'mars'"):
        await client.post("/v1/workspaces", {"name": "Third", "region": "mars"})
    found = {one["name"]: one for one in (await client.get("/v1/regions"))["items"]}
    assert found[US]["here"] and found[US]["copy"] is None
    assert (found[EU]["api"], found[EU]["smtp"]) == (eu.url, ["mx.eu.test"])
    assert found[EU]["copy"]["state"] == "streams"
    await client.close()

    def examined() -> dict[str, dict[str, str]]:
        findings = json.loads(world.command(US, "doctor", "--json").stdout)
        return {one["check"]: one for one in findings["findings"]}

    # A copy that is late for a moment is a warning.
    await asyncio.to_thread(wait_until, lambda: examined()["copy of region eu"]["grade"] == "good")
    said = examined()
    assert said["region us"]["grade"] == "good"
    assert said["copy of region eu"]["found"].startswith("streams; its last commit is of")


async def a_copy_that_stops_is_told_of(world: Regions) -> None:
    """By the site that keeps it: first its server is down, then it cannot hear its primary."""
    us = world.stacks[US].address
    client = ApiClient(us.url, us.api_key)

    async def told() -> dict[str, bool]:
        """Alerts on the copy, newest first: whether each is over."""
        items = (await client.get("/monitoring/alerts"))["items"]
        return {one["id"]: one["ended_at"] is not None for one in items
                if (one["rule"], one["subject"]) == ("region-copy", EU)}  # fmt: skip

    async def until(wanted: list[bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while list((await told()).values()) != wanted:
                await asyncio.sleep(0.5)

    assert await told() == {}
    async with asyncio.timeout(PATIENCE_S):  # known with the scheduler's next beat
        while (await client.get("/monitoring/metrics"))["figures"].get("region.copy_silent_s") != {
            EU: 0.0
        }:
            await asyncio.sleep(0.5)
    world.copies[EU].stop()
    await until([False])
    said = json.loads(world.command(US, "doctor", "--json").stdout)["findings"]
    assert [one["grade"] for one in said if one["check"] == "copy of region eu"] == ["bad"]
    world.copies[EU].start()
    await until([True])
    listening = world.links[EU].target
    world.links[EU].target = ("127.0.0.1", 9)
    world.links[EU].cut()
    await until([False, True])
    world.links[EU].target = listening
    await until([True, True])
    await client.close()


async def large_mails(world: Regions) -> tuple[str, str, bytes]:
    """Two mails at eu whose bytes lie in its blob store; the copy of it has the first alone. Their
    ids and their content."""
    eu = world.stacks[EU].address
    client = ApiClient(eu.url, eu.api_key)
    inbox = await client.post("/v1/inboxes", {"address": "large"})
    content = b"Subject: large\r\n\r\n" + b"A line of a large mail.\r\n" * 2_000
    ids: list[str] = []
    for last in (False, True):
        with smtplib.SMTP(eu.smtp_host, eu.smtp_port, timeout=30) as smtp:
            smtp.sendmail("a@b.example", [inbox["address"]], content)
        async with asyncio.timeout(PATIENCE_S):
            while len(ids) < 1 + last:
                await asyncio.sleep(0.1)
                page = await client.get(f"/v1/inboxes/{inbox['id']}/messages")
                ids = [one["id"] for one in reversed(page["items"])]
        if not last:
            world.copy_blobs(EU, US)
    await client.close()
    return ids[0], ids[1], content


async def their_blobs_are_read_as_they_come(
    world: Regions, first: str, second: str, content: bytes
) -> None:
    eu = world.stacks[EU].address  # at the site of us by now
    client = ApiClient(eu.url, eu.api_key)

    async def raw(message: str) -> bytes:
        pieces: list[bytes] = []
        await client.download(f"/v1/messages/{message}/raw", pieces.append)
        return b"".join(pieces)

    assert (await raw(first)).endswith(content)
    with pytest.raises(ApiProblem) as problem:
        await raw(second)
    assert (problem.value.status, problem.value.code) == (503, "blob_missing")
    world.copy_blobs(EU, US)
    assert (await raw(second)).endswith(content)
    await client.close()
