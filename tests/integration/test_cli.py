"""The commands for people, each against a real platform that `mailyard up` has started."""

import asyncio
import json
import os
import re
import smtplib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from importlib import import_module
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from returned_mail import notification
from typer.main import get_command

from mailyard.cli import exit_code
from mailyard.cli.main import COMMANDS
from mailyard.proving.client import ApiClient
from mailyard.proving.own_platform import Address, OwnPlatform

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Ran:
    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        """The JSON object on the last line."""
        return json.loads(self.out.strip().splitlines()[-1])


class Shell:
    """Runs `mailyard` as a user would, with the platform's address and key in the environment."""

    def __init__(self, address: Address, folder: Path) -> None:
        self.address = address
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("MAILYARD_")},
            "MAILYARD_URL": address.url,
            "MAILYARD_API_KEY": address.api_key,
            "MAILYARD_DATA": str(folder / "nothing-here"),
            "COLUMNS": "200",
        }

    async def run(self, *words: str, stdin: bytes = b"", **environment: str) -> Ran:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mailyard.cli.main",
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.environment, **environment},
        )
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    async def json(self, *words: str) -> Any:
        """The answer of a command that must work."""
        ran = await self.run(*words, "--json")
        assert ran.code == 0, ran.err
        return ran.answer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shell(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shell]:
    folder = tmp_path_factory.mktemp("platform")
    platform = OwnPlatform(folder, {"MAILYARD_DNS_SERVERS": "127.0.0.1:9"})  # nobody answers
    async with platform as address:
        yield Shell(address, folder)


async def test_a_mail_is_sent_waited_for_and_read(shell: Shell) -> None:
    inbox = await shell.json("inbox", "create", "signup-test", "--ttl", "3600", "--label", "cli")
    assert inbox["address"].startswith("signup-test@")
    waiting = asyncio.create_task(
        shell.run("inbox", "wait", inbox["address"], "--subject", "code", "--json")
    )
    sent = await shell.run(
        "send",
        *("--from", "Ada <ada@example.org>", "--to", inbox["address"]),
        *("--subject", "Your code is 42", "--text", "-"),
        stdin=b"Hello from standard input\n",
    )
    assert sent.code == 0, sent.err
    assert "accepted" in sent.out
    waited = await waiting
    assert waited.code == 0, waited.err
    assert waited.answer["subject"] == "Your code is 42"
    assert "Hello from standard input" in waited.answer["content"]["text"]
    listed = await shell.json("inbox", "read", inbox["id"])
    assert [message["subject"] for message in listed["items"]] == ["Your code is 42"]
    shown = await shell.run("inbox", "read", inbox["id"], "--message", listed["items"][0]["id"])
    assert "From: Ada <ada@example.org>" in shown.out
    assert "Hello from standard input" in shown.out


async def test_a_mailbox_is_exported_and_imported(shell: Shell, tmp_path: Path) -> None:
    old = await shell.json("inbox", "create", "old-box")
    new = await shell.json("inbox", "create", "new-box")
    mailbox = tmp_path / "some.mbox"
    mailbox.write_bytes(
        b"From a@x.example Mon Jan  5 12:00:00 2026\nMessage-ID: <1@x>\nSubject: one\n\nhi\n\n"
        b"From a@x.example Mon Jan  5 12:00:00 2026\nno header at all\n"
    )
    told = await shell.run("inbox", "import", old["address"], str(mailbox))
    assert told.code == 1
    assert "1 imported, 0 were there, 1 refused" in told.out
    await shell.json("inbox", "wait", old["address"], "--subject", "one")
    archive = tmp_path / "old.tar"
    ran = await shell.run("inbox", "export", old["address"], str(archive), "--format", "eml")
    assert ran.code == 0, ran.err
    assert f"{archive.stat().st_size:,} bytes" in ran.out
    again = await shell.json("inbox", "import", new["address"], str(archive))
    assert (again["imported"], again["refused"]) == (1, 0)
    await shell.json("inbox", "wait", new["address"], "--subject", "one")
    piped = await shell.run("inbox", "export", new["address"], "-")
    assert "Message-ID: <1@x>\nSubject: one\n\nhi\n" in piped.out


async def test_an_inbox_is_limited_extended_and_purged_and_an_address_held(shell: Shell) -> None:
    inbox = await shell.json("inbox", "create", "bounded", "--ttl", "3600")
    changed = await shell.json(
        "inbox", "change", inbox["id"], "--messages-max", "10", "--message-ttl", "600",
        "--name", "Bounded", "--label", "cli",
    )  # fmt: skip
    limits = (changed["messages_max"], changed["message_ttl_s"], changed["bytes_max"])
    assert (*limits, changed["name"]) == (10, 600.0, None, "Bounded")
    changed = await shell.json("inbox", "change", inbox["id"], "--messages-max", "0")
    assert (changed["messages_max"], changed["message_ttl_s"]) == (None, 600.0)
    assert (await shell.run("inbox", "change", inbox["id"])).code == 1
    assert (await shell.json("inbox", "extend", inbox["address"]))["expires_at"] is None
    held = "held-by-cli@inbox.localhost"
    assert (await shell.json("address", "hold", held))["items"] == [held]
    assert {"address": held} in (await shell.json("address", "list"))["items"]
    assert (await shell.json("address", "release", held))["items"] == [held]
    await shell.run(
        "send", "--from", "a@inbox.localhost", "--to", inbox["address"], "--subject", "Ends",
        "--text", "x",
    )  # fmt: skip
    message = await shell.json("inbox", "wait", inbox["id"], "--subject", "Ends")
    ended = await shell.json("inbox", "end-message", message["id"], "--ttl", "60")
    assert (ended["expires_at"] is None, ended["inboxes"]) == (False, 1)
    assert (await shell.json("inbox", "end-message", message["id"]))["expires_at"] is None
    assert (await shell.run("inbox", "purge", inbox["id"])).code == 0
    assert await shell.json("member", "sessions") == {"items": []}
    assert (await shell.run("member", "end-session", "0" * 64)).code == 1


async def test_an_email_is_withdrawn_and_limits_are_set_and_shown(shell: Shell) -> None:
    sent = await shell.json(
        "send", "--from", "me@inbox.localhost", "--to", "a@inbox.localhost",
        "--to", "b@inbox.localhost", "--subject", "Later", "--text", "x", "--priority", "low",
        "--send-at", (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    )  # fmt: skip
    one = await shell.json("email", "cancel", sent["id"], "--to", "B@inbox.localhost")
    assert one == {"recipients": ["b@inbox.localhost"]}
    shown = await shell.json("email", "show", sent["id"])
    states = {item["recipient"]: item["state"] for item in shown["items"]}
    assert states == {"a@inbox.localhost": "queued", "b@inbox.localhost": "cancelled"}
    limits = await shell.json(
        "limits", "set", "--zone", "Europe/Rome", "--cap", "3/7", "--quota", "500000"
    )
    assert (limits["time_zone"], limits["campaigns_days"]) == ("Europe/Rome", 7)
    shown = await shell.run("limits", "set", "--cap", "none", "--quota", "none", "--zone", "UTC")
    assert "recipients a day       none" in shown.out


async def test_a_wait_for_what_does_not_come_ends_with_status_1(shell: Shell) -> None:
    inbox = await shell.json("inbox", "create")
    ran = await shell.run("inbox", "wait", inbox["id"], "--timeout", "0.2")
    assert (ran.code, ran.out.strip()) == (1, "nothing came")


async def test_control_characters_of_strangers_do_not_reach_the_terminal(shell: Shell) -> None:
    inbox = await shell.json("inbox", "create")
    message = EmailMessage()
    message["From"] = "evil@example.org"
    message["To"] = inbox["address"]
    message["Subject"] = "hello"
    message.set_content("\x1b[2J\x1b]0;owned\x07 red\n")
    with smtplib.SMTP(shell.address.smtp_host, shell.address.smtp_port) as smtp:
        await asyncio.to_thread(smtp.send_message, message)
    shown = await shell.run("inbox", "wait", inbox["id"])
    assert shown.code == 0
    assert "red" in shown.out
    assert "\x1b" not in shown.out
    assert "\x07" not in shown.out


async def test_inboxes_are_listed_by_label_and_deleted(shell: Shell) -> None:
    made = await shell.json("inbox", "create", "--label", "short-lived", "--name", "Mine")
    listed = await shell.json("inbox", "list", "--label", "short-lived")
    assert [one["id"] for one in listed["items"]] == [made["id"]]
    table = await shell.run("inbox", "list", "--label", "short-lived")
    assert made["address"] in table.out
    assert (await shell.run("inbox", "delete", made["address"])).code == 0
    assert (await shell.json("inbox", "list", "--label", "short-lived"))["items"] == []
    again = await shell.run("inbox", "delete", made["address"])
    assert again.code == 1
    assert "there is no inbox" in again.err


async def test_a_file_is_imported_into_a_list_by_name_with_its_rejects(
    shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "people.csv"
    file.write_text("E-Mail,Full Name,Town\nada@example.org,Ada,London\nnobody,X,=1+1\n")
    rejects = tmp_path / "bad.csv"
    words = ("import", str(file), "--list", "readers", "--map", "Town=city")
    ran = await shell.run(*words, "--rejects", str(rejects))
    assert ran.code == 0, ran.err
    assert "1 rows imported, 1 rejected" in ran.out
    assert rejects.read_text().splitlines()[1].startswith("3,")
    again = await shell.json(*words)
    assert (again["state"], again["rows_imported"], again["mapping"]) == (
        "finished",
        1,
        {"Town": "city"},
    )


async def test_a_bounce_that_comes_in_ends_its_delivery_and_stands_on_the_list(
    shell: Shell, tmp_path: Path
) -> None:
    """By SMTP from the world to the return-path that the mail had, in a fresh install."""
    inbox = await shell.json("inbox", "create")
    sent = await shell.json(
        "send", "--from", "me@example.org", "--to", inbox["address"], "--subject", "Hi",
        "--text", "x",
    )  # fmt: skip
    await shell.run("inbox", "wait", inbox["address"], "--subject", "Hi")
    (message,) = (await shell.json("inbox", "read", inbox["id"]))["items"]
    path = (await shell.json("inbox", "read", inbox["id"], "--message", message["id"]))[
        "reverse_path"
    ]
    assert path.endswith("@returns.inbox.localhost")

    def bounce() -> None:
        with smtplib.SMTP(shell.address.smtp_host, shell.address.smtp_port) as smtp:
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                smtp.sendmail("", [path.replace("-", "-a", 1)], b"")
            smtp.sendmail("", [path], notification(inbox["address"]))

    await asyncio.to_thread(bounce)
    async with asyncio.timeout(20):
        while (await shell.json("email", "show", sent["id"]))["items"][0]["state"] != "bounced":
            await asyncio.sleep(0.1)
    listed = await shell.json("delivery", "list", "--to", inbox["address"], "--state", "bounced")
    story = await shell.run("delivery", "show", listed["items"][0]["id"])
    assert story.out.index("accepted, attempt 1") < story.out.index("bounced, told by mail")
    assert "user_unknown" in story.out and "550" in story.out
    (entry,) = (await shell.json("suppression", "list", "--address", inbox["address"]))["items"]
    assert (entry["reason"], entry["source"]) == ("hard_bounce", "mail")
    file = tmp_path / "list.csv"
    assert (await shell.run("suppression", "export", str(file))).code == 0
    assert inbox["address"] in file.read_text()
    assert (await shell.run("suppression", "remove", inbox["address"])).code == 0
    file.write_text(f"address\n{inbox['address']}\nnonsense\n")
    ran = await shell.run("suppression", "import", str(file), "--reason", "unsubscribed")
    assert ran.code == 1 and "1 added" in ran.out and "line 3" in ran.out
    again = await shell.run("suppression", "add", inbox["address"])
    assert again.code == 1 and "suppressed already" in again.err


async def test_an_address_for_a_providers_events_is_made_listed_and_removed(shell: Shell) -> None:
    key = b"a key of sixteen bytes\n"
    ran = await shell.run("provider-hook", "add", "mailgun", "EU", stdin=key)
    assert ran.code == 0 and "/v1/hooks/mailgun/" in ran.out, ran.err
    (hook,) = (await shell.json("provider-hook", "list"))["items"]
    changed = await shell.run("provider-hook", "secret", hook["id"], "--secret", "x" * 20)
    assert changed.code == 0, changed.err
    assert (await shell.run("provider-hook", "remove", hook["id"])).code == 0
    assert (await shell.json("provider-hook", "list"))["items"] == []


async def test_a_file_of_no_use_is_refused_with_the_reason(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("first,last\nAda,Lovelace\n")
    ran = await shell.run("import", str(file))
    assert ran.code == 1
    assert "no column holds email addresses" in ran.err
    assert (await shell.run("import", str(tmp_path / "absent.csv"))).code == 1


async def test_a_campaign_is_made_started_and_watched_to_its_end(
    shell: Shell, tmp_path: Path
) -> None:
    inbox = await shell.json("inbox", "create")
    file = tmp_path / "one.csv"
    file.write_text(f"email,name\n{inbox['address']},Ada\n")
    done = await shell.json("import", str(file), "--list", "campaigners")
    client = ApiClient(shell.address.url, shell.address.api_key)
    template = await client.post(
        "/v1/templates", {"name": "hello", "subject": "Hello {{ name }}", "text": "Hi {{ name }}"}
    )
    await client.close()
    made = await shell.json(
        *("campaign", "create", "News", "--list", done["list_id"], "--template", template["id"]),
        *("--from", "news@example.org"),
    )
    assert made["state"] == "draft"
    assert (await shell.json("campaign", "start", made["id"]))["state"] == "running"
    watched = await shell.run("campaign", "watch", made["id"])
    assert watched.code == 0, watched.err
    assert "finished: 1 accepted" in watched.out
    message = await shell.json("inbox", "wait", inbox["id"])
    assert message["subject"] == "Hello Ada"
    listed = await shell.json("campaign", "list")
    assert listed["items"][0]["state"] == "finished"
    refused = await shell.run("campaign", "pause", made["id"])
    assert refused.code == 1
    assert "cannot pause" in refused.err
    await _to_a_segment(shell, template["id"], inbox)


async def _to_a_segment(shell: Shell, template: str, inbox: Any) -> None:
    """A segment is made, asked in each way, and gets a campaign."""
    made = await shell.json("segment", "create", "Adas", f'address = "{inbox["address"]}"')
    wrong = await shell.run("segment", "create", "Bobs", "name = bob")
    assert wrong.code == 1 and "line 1, column 8: expected a value" in wrong.err
    assert (await shell.run("segment", "estimate", made["id"])).out.startswith("1 of ")
    assert await shell.json("segment", "count", 'name = "nobody"') == {"contacts": 0}
    her = f'name = "Ada" and address = "{inbox["address"]}"'
    changed = await shell.json("segment", "change", made["id"], "--filter", her)
    assert changed["filter"] == her
    counted = await shell.run("segment", "count", made["id"])
    assert counted.out.endswith("1 contacts\n")
    assert inbox["address"] in (await shell.run("segment", "contacts", made["id"])).out
    campaign = await shell.json(
        *("campaign", "create", "More", "--segment", made["id"], "--template", template),
        *("--from", "news@example.org", "--start"),
    )
    watched = await shell.run("campaign", "watch", campaign["id"])
    assert "finished: 1 accepted" in watched.out, watched.err
    assert (await shell.run("segment", "delete", made["id"])).code == 0
    assert (await shell.json("segment", "list"))["items"] == []


async def test_a_campaign_about_a_topic_is_followed_and_left(shell: Shell, tmp_path: Path) -> None:
    """From the command to the link in a delivered mail, and back to what is counted."""
    topic = await shell.json("topic", "create", "Weekly news")
    inbox = await shell.json("inbox", "create")
    file = tmp_path / "one.csv"
    file.write_text(f"email,name\n{inbox['address']},Ada\n")
    done = await shell.json("import", str(file), "--list", "followers")
    client = ApiClient(shell.address.url, shell.address.api_key)
    html = (
        '<a href="https://shop.example/?a=1&amp;b=2">look</a> <a href="{{ unsubscribe_url }}">x</a>'
    )
    template = await client.post(
        "/v1/templates", {"name": "look", "subject": "Look", "html": html, "text": "Look"}
    )
    made = await shell.json(
        *("campaign", "create", "Look", "--list", done["list_id"], "--template", template["id"]),
        *("--from", "news@example.org", "--topic", topic["id"], "--track-clicks", "--start"),
    )
    message = await shell.json("inbox", "wait", inbox["id"])
    mail = json.dumps(await client.get(f"/v1/messages/{message['id']}"))
    (click,) = set(re.findall(r"http://[0-9.:]+/c/[\w-]{56}", mail))
    (leave,) = set(re.findall(r"http://[0-9.:]+/u/[\w-]{56}", mail))
    async with aiohttp.ClientSession() as browser:
        async with browser.get(click, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["location"]) == (
                302, "https://shop.example/?a=1&b=2"
            )  # fmt: skip
        async with browser.post(leave, data={"List-Unsubscribe": "One-Click"}) as answer:
            assert answer.status == 200
    found: dict[str, Any] = {}
    async with asyncio.timeout(30):
        while not found or found["clicks"] + found["machine_clicks"] != 1:
            found = await shell.json("campaign", "tracking", made["id"])
    assert [link["url"] for link in found["links"]] == ["https://shop.example/?a=1&b=2"]
    assert found["unsubscribed"] == 1
    contact = (await client.get("/v1/contacts", search=inbox["address"]))["items"][0]
    await client.close()
    said = await shell.json("topic", "contact", contact["id"])
    assert [(one["topic"], one["subscribed"]) for one in said["items"]] == [(topic["id"], False)]
    said = await shell.json("topic", "contact", contact["id"], "--on", topic["id"])
    assert said["items"][0]["subscribed"]
    assert (await shell.json("topic", "delete", topic["id"]))["deleted"]
    assert (await shell.json("topic", "list"))["items"] == []


async def test_names_for_links_are_added_checked_and_removed(shell: Shell) -> None:
    added = await shell.run("tracking-domain", "add", "click.example.org")
    assert "click.example.org. CNAME 127.0.0.1." in added.out
    (domain,) = (await shell.json("tracking-domain", "list"))["items"]
    checked = await shell.run("tracking-domain", "check", domain["id"])
    assert checked.code == 1 and "click.example.org" in checked.out
    assert (await shell.json("tracking-domain", "remove", domain["id"]))["removed"]


async def test_a_template_is_pushed_previewed_published_and_rolled_back(
    shell: Shell, tmp_path: Path
) -> None:
    mail, layout = tmp_path / "mail.html", tmp_path / "layout.html"
    layout.write_text("<b>{% block body %}{% endblock %}</b>")
    mail.write_text('{% extends "shell" %}{% block body %}Hi {{ name }}{% endblock %}')
    command = ("template", "push", "news", "--html", str(mail), "--subject", "Hello {{ name }}")
    refused = await shell.run(*command)
    assert (refused.code, "html, line 1, column 1: there is no layout" in refused.err) == (1, True)
    await shell.json("template", "push", "shell", "--kind", "layout", "--html", str(layout))
    assert (await shell.json(*command))["version"] == 1
    mail.write_text("<p>Dear {{ name }}</p>")
    draft = await shell.json("template", "push", "news", "--html", str(mail), "--draft")
    assert (draft["version"], draft["published"], draft["subject"]) == (0, 1, "Hello {{ name }}")
    data = ("--data", '{"name": "Ann"}')
    shown = await shell.run("template", "preview", "news", "--draft", *data)
    assert shown.out == "Subject: Hello Ann\n\nDear Ann\n\n"
    assert (await shell.json("template", "preview", "news", *data))["html"] == "<b>Hi Ann</b>"
    published = await shell.run("template", "publish", "news")
    assert published.out.endswith("news version 2\n")
    assert (await shell.json("template", "rollback", "news", "1"))["version"] == 1
    layout.write_text("<i>{% block body %}{% endblock %}</i>")
    await shell.json("template", "push", "shell", "--html", str(layout))
    again = await shell.json("template", "republish", "shell", "--users")
    assert [(one["name"], one["version"]) for one in again["items"]] == [("news", 3)]
    listed = await shell.json("template", "versions", "news")
    assert [(one["version"], one["published"]) for one in listed["items"]] == [
        (3, 3), (2, 3), (1, 3),
    ]  # fmt: skip
    inbox = await shell.json("inbox", "create")
    await shell.json(
        *("template", "test", "news", *data, "--to", inbox["address"]),
        *("--from", "me@example.org"),
    )
    assert (await shell.json("inbox", "wait", inbox["id"]))["subject"] == "[Test] Hello Ann"
    names = [one["name"] for one in (await shell.json("template", "list"))["items"]]
    assert {"news", "shell"} <= set(names)
    assert (await shell.run("template", "publish", "nobody")).code == 1


async def test_queues_are_shown_paused_and_resumed(shell: Shell) -> None:
    assert (await shell.json("queue", "pause", "analysis"))["paused"] is True
    queues = {one["queue"]: one for one in (await shell.json("queue", "list"))["items"]}
    assert queues["analysis"]["paused"] is True
    assert (await shell.run("queue", "resume", "analysis")).out.strip() == "analysis is running"
    assert (await shell.run("queue", "pause", "nonsense")).code == 1


async def test_limits_by_name_are_shown_and_reset(shell: Shell) -> None:
    limits = {one["name"]: one for one in (await shell.json("limits", "policies"))["items"]}
    assert (limits["graph"]["units"], limits["graph"]["concurrent"]) == (10_000, 4)
    done = await shell.json("limits", "reset", "general", "ada@example.org")
    assert done == {"subject": "ada@example.org", "policies": ["general"]}
    assert (await shell.run("limits", "reset", "nobody", "ada@example.org")).code == 1


async def test_a_feature_comes_to_more_workspaces(shell: Shell) -> None:
    assert (await shell.json("feature", "set", "person-limit", "0"))["percent"] == 0
    [feature] = (await shell.json("feature", "list"))["items"]
    assert (feature["percent"], feature["having"]) == (0, 0)
    assert (await shell.run("feature", "set", "person-limit", "33")).code == 1
    assert (await shell.run("feature", "set", "nobody", "50")).code == 1
    assert (await shell.json("feature", "set", "person-limit", "100"))["percent"] == 100


async def test_dead_letters_are_listed_and_redriven(shell: Shell) -> None:
    assert (await shell.json("queue", "dead"))["items"] == []
    assert (await shell.json("queue", "redrive", "--all"))["ids"] == []
    assert (await shell.run("queue", "redrive", "4711")).code == 1
    assert (await shell.run("queue", "redrive")).code == 2


async def test_destinations_are_shown_paused_and_resumed(shell: Shell) -> None:
    assert (await shell.json("shaping", "show"))["items"] == []
    assert (await shell.json("shaping", "events"))["items"] == []
    assert (await shell.json("shaping", "tls"))["items"] == []
    assert [one["pool"] for one in (await shell.json("shaping", "sources"))["items"]] == ["default"]
    unknown = await shell.run("shaping", "pause", "mx.example.org", "--for", "2 h")
    assert (unknown.code, "nothing was sent" in unknown.err) == (1, True)
    assert (await shell.run("shaping", "resume", "mx.example.org")).code == 1
    wrong = await shell.run("shaping", "pause", "mx.example.org", "--for", "soon")
    assert (wrong.code, "allowed is a number with s, min, h or d" in wrong.err) == (1, True)


async def test_exit_codes_tell_refused_wrong_usage_away_and_misconfigured(shell: Shell) -> None:
    refused = await shell.run("inbox", "delete", "ibx_00000000000000000000000000")
    assert refused.code == 1
    wrong = await shell.run("inbox", "wait", "x", "--timeout", "many")
    assert wrong.code == 2
    away = await shell.run("inbox", "list", MAILYARD_URL="http://127.0.0.1:9")
    assert (away.code, "no answer" in away.err) == (69, True)
    no_key = await shell.run("inbox", "list", MAILYARD_API_KEY="")
    assert (no_key.code, "MAILYARD_API_KEY" in no_key.err) == (78, True)
    wrong_key = await shell.run("inbox", "list", MAILYARD_API_KEY="my_nobody_nothing")
    assert wrong_key.code == 1


async def test_what_a_command_cannot_read_or_write_is_named(shell: Shell, tmp_path: Path) -> None:
    latin = tmp_path / "latin.html"
    latin.write_bytes("<p>\n<b>café</b>".encode("latin-1"))
    absent, nowhere = str(tmp_path / "absent"), str(tmp_path / "no" / "where.csv")
    mail = ("send", "--from", "a@inbox.localhost", "--to", "b@inbox.localhost", "--subject", "x")
    for words, said in (
        ((*mail, "--html", absent), "absent cannot be read: No such file"),
        ((*mail, "--attach", str(tmp_path)), "cannot be read: Is a directory"),
        ((*mail, "--html", str(latin)), "latin.html is not UTF-8 text: line 2"),
        (("template", "push", "x", "--html", str(latin)), "is not UTF-8 text: line 2"),
        (("route", "set", "--file", str(latin)), "is not UTF-8 text: line 2"),
        (("route", "set", "--file", absent), "absent cannot be read: No such file"),
        (("import", absent), "absent is not a file"),
        (("import", "history", absent), "absent is not a file"),
        (("suppression", "export", nowhere), "where.csv: No such file or directory"),
    ):
        ran = await shell.run(*words)
        assert (ran.code, said in ran.err) == (1, True), (words, ran.err)
        assert "Traceback" not in ran.err


async def test_a_key_that_can_be_none_is_said_without_asking_anybody(shell: Shell) -> None:
    for key in ("my_…1", "my key", "ключ"):
        ran = await shell.run("inbox", "list", MAILYARD_API_KEY=key)
        assert (ran.code, "MAILYARD_API_KEY is no API key" in ran.err) == (78, True), ran.err
        assert key not in ran.err


async def test_the_key_may_stand_in_the_data_folder(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text(shell.address.api_key + "\n")
    ran = await shell.run("inbox", "list", MAILYARD_API_KEY="", MAILYARD_DATA=str(tmp_path))
    assert ran.code == 0, ran.err


async def test_webhooks_are_made_tried_listed_and_removed(shell: Shell) -> None:
    made = (
        await shell.run(
            "webhook", "add", "Hooks", "http://localhost:9/", "--where", "subject:*x*", "--json"
        )
    ).answer
    assert made["secret"].startswith("whsec_")
    tried = await shell.run("webhook", "test", made["id"])
    assert tried.code == 1
    assert "may not be connected to" in tried.out, "what is not public is not reached"
    told = (await shell.run("webhook", "deliveries", made["id"], "--json")).answer["items"]
    assert [one["kind"] for one in told] == ["webhook.test"]
    shown = await shell.run("webhook", "show", told[0]["id"])
    assert '"type":"webhook.test"' in shown.out
    await shell.run("webhook", "rotate", made["id"])
    await shell.run("webhook", "disable", made["id"])
    listed = (await shell.run("webhook", "list", "--json")).answer["items"]
    assert [one["enabled"] for one in listed] == [False]
    assert (await shell.run("webhook", "enable", made["id"])).code == 0
    since = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    assert (await shell.run("webhook", "replay", made["id"], since)).code == 0
    assert "put back" in (await shell.run("webhook", "redrive", made["id"])).out
    assert (await shell.run("webhook", "remove", made["id"])).code == 0
    assert (await shell.run("webhook", "list", "--json")).answer["items"] == []


def _leaves() -> Iterator[tuple[str, Any]]:
    """Every command with what it is called, sub-commands each."""
    for name, (module, _) in COMMANDS.items():
        command = get_command(import_module(module).app)
        below = getattr(command, "commands", {})
        yield from [(f"{name} {word}", one) for word, one in below.items()] or [(name, command)]


LEAVES = dict(_leaves())
# What has no answer in two forms: processes that serve until they are told to end, a file that is
# printed as JSON in any case, and one in a form that DNS hosts read.
_ONE_FORM = {"api", "smtp", "worker", "scheduler", "mcp", "report read", "domain zone"}


@pytest.mark.parametrize("name", LEAVES)
async def test_help_shows_an_example_and_programs_get_json(name: str) -> None:
    text = " ".join((LEAVES[name].help or "").split())
    assert re.search(rf"Example: (?:\S+=\S+ )*mailyard {name}(?!\w)", text)
    options = {option for one in LEAVES[name].params for option in one.opts}
    assert ("--json" in options) is (name not in _ONE_FORM)
    unexplained = [one.name for one in LEAVES[name].params if not getattr(one, "help", None)]
    assert unexplained == [], "each option says what it is for"


async def test_exit_codes_are_documented(shell: Shell) -> None:
    shown = await shell.run("--help")
    assert shown.code == 0
    codes = [value for name, value in vars(exit_code).items() if name.isupper()]
    assert len(codes) == 6
    assert [code for code in codes if not re.search(rf"(?:^|[ ;]){code} \w", shown.out)] == []
    listed = [line.split("  ")[1].strip() for line in shown.out.splitlines() if line[:2] == "  "]
    assert set(COMMANDS) <= set(listed)


async def test_a_provider_is_added_routed_to_tried_and_removed(shell: Shell) -> None:
    at_home = ("--set", "host=127.0.0.1", "--set", "port=9", "--set", "tls=none")
    made = await shell.json("provider", "add", "home", "--kind", "smtp", *at_home)
    assert (made["name"], made["settings"]["port"], made["own"]) == ("home", 9, True)
    routed = await shell.json("route", "set", "home:3", "relay:1:1")
    assert routed["in_force"] == "own"
    assert [leg["order"] for leg in routed["items"][0]["legs"]] == [0, 1]
    tried = await shell.run(
        "provider", "test", "home", "--from", "a@example.org", "--to", "b@example.org"
    )
    assert tried.code == 1 and "later" in tried.out
    assert (await shell.run("provider", "remove", "home")).code == 1, "a route has it"
    assert (await shell.json("route", "clear"))["in_force"] == "relay"
    assert (await shell.json("provider", "change", "home", "--off"))["enabled"] is False
    assert "home" in (await shell.run("provider", "show", "home")).out
    assert (await shell.run("provider", "remove", "home")).code == 0
    assert (await shell.json("provider", "list"))["items"] == []


async def test_the_demonstration_uses_the_platform_that_runs(shell: Shell) -> None:
    verdict = await shell.json("demo", "--recipients", "40")
    assert (verdict["sent"], verdict["received"], verdict["clean"]) == (40, 40, True)
    listed = await shell.json("monitoring", "load-tests")
    newest = (listed["items"] if isinstance(listed, dict) else listed)[0]
    assert (newest["origin"], newest["recipients"], newest["clean"]) == ("command", 40, True)
    assert newest["processes"]["worker"] >= 1


async def test_a_domain_is_added_its_records_shown_and_checked(shell: Shell) -> None:
    made = await shell.json("domain", "add", "Shop.Example")
    assert (made["name"], made["status"]) == ("shop.example", "unchecked")
    zone = await shell.run("domain", "zone", "shop.example")
    assert len(zone.out.splitlines()) == len(made["records"]) >= 3
    assert '._domainkey.shop.example. IN TXT "v=DKIM1; k=rsa; p=' in zone.out
    seen = await shell.run("domain", "check", "shop.example")
    assert seen.code == 1  # nobody has set its records
    shown = await shell.run("domain", "show", made["id"])
    assert "its mail is not signed yet" in shown.out
    assert "_dmarc.shop.example" in shown.out
    listed = await shell.json("domain", "list")
    assert [one["name"] for one in listed["items"]] == ["shop.example"]
    again = await shell.run("domain", "rotate", "shop.example")
    assert (again.code, "new keys wait already" in again.err) == (1, True)
    assert (await shell.run("domain", "show", "nobody.example")).code == 1
    assert (await shell.run("domain", "remove", "shop.example")).code == 0
