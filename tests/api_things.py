"""One of everything that a workspace can have, and a plausible request for every route."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from api_platform import Platform
from domains_seen import keys_stand

from mailyard.access.session import token_hash
from mailyard.core import ids
from mailyard.mailbox.follow import NewLine
from mailyard.mailbox.strand import Strand
from mailyard.queue.job import MEDIA, NewJob
from mailyard.web.api.route import Route

RAW = (
    b"From: Zebra <zebra@example.org>\r\nTo: x@inbox.localhost\r\nSubject: %b\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\n%b\r\n"
    b'--b\r\nContent-Type: text/csv\r\nContent-Disposition: attachment; filename="a.csv"\r\n\r\n'
    b"%b\r\n--b--\r\n"
)

_TOLD = ["message.received"]
A_MINUTE_AGO = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
_NO_MODEL = {"model": "m", "base_url": "https://127.0.0.1:9"}
_LOAD_TEST = {
    "recipients": 10,
    "sent": 10,
    "received": 10,
    "lost": 0,
    "twice": 0,
    "wrong": 0,
    "unknown": 0,
    "seconds": 2.0,
    "per_second": 5,
}
_NOWHERE = {"host": "127.0.0.1", "port": 9}  # where a tenant's provider may not be


# Things that the program has by itself, for parameters that are a name.
_NAMED = {"user": "a@b.example", "policy": "general", "feature": "person-limit"}


@dataclass
class Things:
    """Ids of one workspace's things by the prefix of their kind, and the word that all contain."""

    workspace_id: UUID
    key: str
    word: str
    ids: dict[str, str] = field(default_factory=dict)
    dead_letter: int = 0
    seq: int = 0  # of a change that can be taken back

    def path_of(self, route: Route) -> str:
        """The route's path with these things' ids in it."""
        path = route.path
        for name, prefix in route.parameters:
            other = {"index": "0", "version": "1", "queue": "media", "number": "1", **_NAMED}.get(
                name, "x"
            )
            other = self.ids["session"] if name == "session_id" else other
            if prefix is None:
                path = path.replace(f"{{{name}}}", other)
            else:
                path = path.replace(f"{{{name}:{prefix}}}", self.ids[prefix])
        return path

    def body_of(self, route: Route) -> Any:
        """A body that the route accepts, naming these things where it names any."""
        email = {"from": "a@example.org", "to": ["b@example.org"], "subject": "s", "text": "t"}
        bodies: dict[str, Any] = {
            "sendEmail": email,
            "sendEmailBatch": {"emails": [email]},
            "createTemplate": {"name": "another", "subject": "s", "text": "t"},
            "publishTemplate": {"subject": "s", "text": "t"},
            "previewTemplate": {"data": {}},
            "saveTemplateDraft": {"subject": "s", "text": "t"},
            "sendTemplateTest": {"from": "a@example.org", "to": "b@example.org"},
            "changeDomain": {"return_path": "bounces"},
            "createDomain": {"name": "another.example.org"},
            "createReceivingDomain": {"name": "another.in.example.org"},
            "changeReceivingDomain": {"plus": False},
            "createInboundRoute": {"pattern": "another", "action": "drop"},
            "placeInboundRoute": {"position": 7},
            "setMailPolicy": {"blocked": [f"{self.word}.bad.example"], "greylist_s": 60},
            "reserveAddresses": {"addresses": ["another-held@inbox.localhost"]},
            "releaseAddresses": {"addresses": ["another-held@inbox.localhost"]},
            "createProvider": {"name": "another", "kind": "smtp", "settings": _NOWHERE},
            "changeProvider": {"enabled": False},
            "testProvider": {"from": "a@example.org", "to": "b@example.org"},
            "replaceRoutes": {"routes": [{"name": "all", "legs": [{"provider": "relay"}]}]},
            "addSuppression": {"address": "another@example.org"},
            "createInbox": {},
            "createInboxes": {"inboxes": [{}]},
            "changeInbox": {"name": "changed"},
            "askAnalysis": {"aspects": ["summary"]},
            "setAnalysisPolicy": {"on_arrival": True},
            "setInboxAnalysis": {"on_arrival": True},
            "createModel": {"name": "another", "kind": "openai", "settings": _NO_MODEL},
            "changeModel": {"enabled": False},
            "testModel": {},
            "extendInbox": {"ttl_s": 3600},
            "purgeInboxes": {"inbox_ids": [self.ids.get("purged", self.ids["ibx"])]},
            "readInboxes": {"inbox_ids": [self.ids["ibx"]]},
            "reindexMail": {"again": True},
            "changeSearchSettings": {"language": "german"},
            "setInboxSearch": {"by_meaning": False},
            "setSenderPolicy": {"on_forged": "tag"},
            "changeMailbox": {"labels": ["changed"]},
            "changeMessage": {"ttl_s": 86_400},
            "changeMessages": {"action": "star", "message_ids": [self.ids["msg"]]},
            "undoChange": {"seq": self.seq},
            "createDraft": {"subject": "another"},
            "saveDraft": {"revision": 1, "subject": "changed"},
            "sendDraft": {"revision": 1},
            "createNote": {"name": "another", "text": "t"},
            "changeNote": {"name": "changed", "text": "t"},
            "createContact": {"address": "another@example.org"},
            "changeContact": {"name": "changed"},
            "recordContactEvents": {"events": [{"contact": self.ids["con"], "kind": "bought"}]},
            "createList": {"name": "another"},
            "renameList": {"name": "changed"},
            "addListContacts": {"contact_ids": [self.ids["con"]]},
            "removeListContacts": {"contact_ids": [self.ids["con"]]},
            "createSegment": {"name": "another", "filter": "opened"},
            "changeSegment": {"name": "changed", "filter": "not opened"},
            "estimateFilter": {"filter": f'list "{self.ids["lst"]}"'},
            "countFilter": {"filter": f'list "{self.ids["lst"]}"'},
            "createCampaign": {
                "name": "another",
                "list": self.ids["lst"],
                "template": self.ids["tpl"],
                "from": "a@example.org",
                "topic": self.ids["top"],
            },
            "pauseDestination": {"destination": f"mx.{self.word}.example", "seconds": 60},
            "resumeDestination": {"destination": f"mx.{self.word}.example"},
            "createTopic": {"name": "another"},
            "changeTopic": {"description": "changed"},
            "changeContactTopics": {"items": [{"topic": self.ids["top"], "subscribed": False}]},
            "createTrackingDomain": {"name": "another.click.example.org"},
            "changeImprint": {"physical_address": "1 Any Street", "footer_text": "changed"},
            "createProviderHook": {
                "kind": "mailgun",
                "name": "another",
                "secret": "a signing key of mailgun",
            },
            "changeProviderHookSecret": {"secret": "another signing key of mailgun"},
            "createWebhook": {"name": "another", "url": "https://a.example/", "kinds": _TOLD},
            "changeWebhook": {"name": "changed"},
            "rotateWebhookSecret": {"overlap_s": 60},
            "redriveWebhookDeliveries": {},
            "startWebhookReplay": {"since": A_MINUTE_AGO},
            "redriveDeadLetters": {"ids": [self.dead_letter]},
            "discardDeadLetters": {"ids": [self.dead_letter]},
            "startDemo": {"recipients": 1},
            "recordLoadTest": _LOAD_TEST,
            "createKey": {"name": "another", "scopes": ["emails:read"]},
            "addMember": {"email": "another@example.org", "role": "viewer"},
            "invite": {"email": "invited@example.org", "role": "viewer"},
            "changeMember": {"role": "viewer"},
            "createWorkspace": {"name": "another"},
            "assignPlan": {
                "workspace_id": ids.type_id(ids.WORKSPACE, self.workspace_id),
                "plan": "",
            },
            "renameWorkspace": {"name": "changed"},
            "resetLimitPolicy": {"subject": "somebody@example.org"},
            "changeFeature": {"percent": 50},
            "changeLimits": {"time_zone": "Europe/Rome", "emails_per_day": 1_000_000},
        }
        return bodies[route.operation]


async def request(platform: Platform, route: Route, things: Things, key: str | None) -> Any:
    """Call `route` for `things` with `key`; the reply."""
    path = things.path_of(route)
    if route.operation in ("startImport", "importSuppressions"):
        return await platform.call(
            "POST",
            path,
            body=b"email\nx@example.org\n",
            headers={"content-type": "text/csv"},
            key=key,
        )
    if route.operation == "importInbox":
        mail = b"Message-ID: <imported@x.example>\nSubject: imported\n\nhello\n"
        headers = {"content-type": "message/rfc822"}
        return await platform.call("POST", path, body=mail, headers=headers, key=key)
    body = things.body_of(route) if route.body is not None else None
    return await platform.call(route.method, path, json=body, key=key)


async def _made(platform: Platform, key: str, path: str, body: Any) -> str:
    reply = await platform.call("POST", path, json=body, key=key)
    assert reply.status in (200, 201, 202), (path, reply.body)
    return str(reply.json["id"])


async def make_things(platform: Platform, workspace_id: UUID, key: str, word: str) -> Things:
    """One of everything in a workspace, with `word` in every text of it."""
    things = Things(workspace_id, key, word)
    made = things.ids

    async def make(prefix: str, path: str, body: Any) -> None:
        made[prefix] = await _made(platform, key, path, body)

    made["wsp"] = ids.type_id(ids.WORKSPACE, workspace_id)
    await make("ibx", "/v1/inboxes", {"address": f"{word}-box", "name": word, "labels": [word]})
    await make("tpl", "/v1/templates", {"name": word, "subject": word, "text": word})
    await platform.call(
        "PUT",
        f"/v1/templates/{made['tpl']}/draft",
        json={"subject": word, "text": word},
        key=key,
    )
    await make("con", "/v1/contacts", {"address": f"{word}@example.org", "name": word})
    await make("lst", "/v1/lists", {"name": word})
    await make("seg", "/v1/segments", {"name": word, "filter": f'name = "{word}"'})
    await make("sup", "/v1/suppressions", {"address": f"{word}-no@example.org", "evidence": word})
    await make(
        "hok",
        "/v1/provider-hooks",
        {"kind": "mailgun", "name": word, "secret": "a signing key of mailgun"},
    )
    where = {"subject": [f"*{word}*"]}
    await make(
        "whk",
        "/v1/webhooks",
        {"name": word, "url": f"https://{word}.example/", "kinds": _TOLD, "where": where},
    )
    made["whd"] = await _tell(platform, things)
    model = {"name": word, "kind": "openai", "settings": _NO_MODEL, "key": f"key-of-{word}"}
    await make("mdl", "/v1/analysis/models", model)
    await make("dom", "/v1/domains", {"name": f"{word}.example.org"})
    await make("rdm", "/v1/receiving-domains", {"name": f"in.{word}.example.org"})
    await make(
        "irt",
        f"/v1/receiving-domains/{made['rdm']}/routes",
        {"pattern": f"{word}-*", "action": "inbox", "inbox": f"{word}-box@inbox.localhost"},
    )
    held = {"addresses": [f"{word}-held@inbox.localhost"]}
    reply = await platform.call("POST", "/v1/reserved-addresses", json=held, key=key)
    assert reply.status == 201, reply.body
    smtp = {"name": word, "kind": "smtp", "settings": _NOWHERE | {"username": word},
            "secrets": {"password": f"secret-of-{word}"}}  # fmt: skip
    await make("prv", "/v1/providers", smtp)
    routes = [{"name": word, "legs": [{"provider": "relay"}]}]
    reply = await platform.call("PUT", "/v1/routes", json={"routes": routes}, key=key)
    assert reply.status == 200, reply.body
    await _publish(platform, things)
    await make("top", "/v1/topics", {"name": word, "description": word})
    await make("tdm", "/v1/tracking-domains", {"name": f"click.{word}.example.org"})
    await platform.call("PUT", "/v1/imprint", json={"physical_address": word}, key=key)
    await make("key", "/v1/keys", {"name": word, "scopes": ["emails:read"]})
    await make("inv", "/v1/invitations", {"email": f"{word}-in@example.org", "role": "viewer"})
    await make("usr", "/v1/members", {"email": f"{word}-owner@example.org", "role": "owner"})
    session = await platform.app.sessions.start(
        ids.parse_type_id(ids.USER, made["usr"]), workspace_id, word
    )
    made["session"] = token_hash(session.token).hex()
    await platform.call(
        "POST", f"/v1/lists/{made['lst']}/contacts", json={"contact_ids": [made["con"]]}, key=key
    )
    await make(
        "cmp",
        "/v1/campaigns",
        {"name": word, "list": made["lst"], "template": made["tpl"], "from": f"{word}@example.org"},
    )
    email = {
        "from": f"{word}@example.org",
        "to": [f"{word}-to@example.org"],
        "subject": word,
        "text": word,
        "type": word,
        "send_at": "2026-12-31T00:00:00Z",
    }
    sent = await platform.call("POST", "/v1/emails", json=email, key=key)
    made["eml"] = sent.json["id"]
    # Of another email: whoever withdraws the one may still withdraw the other.
    sent = await platform.call("POST", "/v1/emails", json=email, key=key)
    made["dlv"] = sent.json["recipients"][0]["delivery_id"]
    await _come_back(platform, things)
    uploaded = await platform.call(
        "POST",
        f"/v1/imports?file_name={word}.csv",
        body=f"email,name\n{word}-row@example.org,{word}\nnonsense-{word},x\n".encode(),
        headers={"content-type": "text/csv"},
        key=key,
    )
    assert uploaded.status == 202, uploaded.body
    made["imp"] = uploaded.json["id"]
    made["msg"] = await _receive(platform, things)
    await _arrange(platform, things)
    things.dead_letter = await bury(platform, workspace_id, word)
    made["dmo"] = await _demo(platform, workspace_id)
    if workspace_id == platform.workspace_id:  # which runs the installation
        await _write_to(platform, word)
    return things


async def _write_to(platform: Platform, word: str) -> None:
    """A destination that own delivery has written to."""
    async with platform.app.database.connection() as connection:
        await connection.execute(
            "INSERT INTO shaping_site (key, source, place, receiver, updated_at) "
            "VALUES ('site::mx.' || $1 || '.example', '', 'mx.' || $1 || '.example', 'default', "
            "now()) ON CONFLICT DO NOTHING",
            word,
        )


async def _tell(platform: Platform, things: Things) -> str:
    """A delivery of the webhook that has died."""
    delivery_id = ids.uuid7()
    async with platform.app.database.connection() as connection:
        await connection.execute(
            "INSERT INTO webhook_delivery (id, workspace_id, webhook_id, seq, event, kind, item, "
            "happened_at, state, waits_since, due_at, why) VALUES ($1, $2, $3, 1, '1-1-1', "
            "'message.received', '{}', now(), 'dead', now(), now(), $4)",
            delivery_id,
            things.workspace_id,
            ids.parse_type_id(ids.WEBHOOK, things.ids["whk"]),
            things.word,
        )
    return ids.type_id(ids.WEBHOOK_DELIVERY, delivery_id)


async def _publish(platform: Platform, things: Things) -> None:
    """The domain's keys are seen in DNS, so that they may be rotated."""
    domain_id = ids.parse_type_id(ids.DOMAIN, things.ids["dom"])
    domains, workspace_id = platform.app.domains, things.workspace_id
    domain = await domains.get(workspace_id, domain_id)
    async with platform.app.database.transaction() as tx:
        await domains.note(workspace_id, domain_id, keys_stand(domain), tx)


async def _come_back(platform: Platform, things: Things) -> None:
    """A mail that told something of the delivery, as the listener stores it: in nobody's name."""
    word = things.word.encode()
    raw, message_id = RAW % (word, word, word), ids.uuid7()
    async with platform.app.database.connection() as connection:
        await connection.execute(
            "INSERT INTO message (id, workspace_id, retention_days, reverse_path, recipients, "
            "inbox_ids, helo, peer, size_bytes, raw) "
            "VALUES ($1, $2, 30, '', '{}', '{}', 'helo', '127.0.0.1', $3, $4)",
            message_id,
            UUID(int=0),
            len(raw),
            raw,
        )
        await connection.execute(
            "INSERT INTO delivery_event (delivery_id, seq, workspace_id, state, kind, source, "
            "message_id) VALUES ($1, 1, $2, 'queued', 'replied', 'mail', $3)",
            ids.parse_type_id(ids.DELIVERY, things.ids["dlv"]),
            things.workspace_id,
            message_id,
        )


async def _receive(platform: Platform, things: Things) -> str:
    """Put a message into the inbox as ingest would have."""
    word = things.word.encode()
    raw = RAW % (word, word, word)
    message_id = ids.uuid7()
    inbox_id = ids.parse_type_id(ids.INBOX, things.ids["ibx"])
    async with platform.app.database.connection() as connection:
        await connection.execute(
            "INSERT INTO message (id, workspace_id, retention_days, reverse_path, recipients, "
            "inbox_ids, helo, peer, size_bytes, raw) "
            "VALUES ($1, $2, 0, 'z@example.org', $3, $4, 'helo', '127.0.0.1', $5, $6)",
            message_id,
            things.workspace_id,
            [f"{things.word}-box@inbox.localhost"],
            [inbox_id],
            len(raw),
            raw,
        )
        await connection.execute(
            "INSERT INTO inbox_message (inbox_id, message_id, workspace_id, retention_days, "
            "message_retention_days, recipient, from_address, from_name, subject, preview, "
            "sent_at, header_message_id, size_bytes, attachments) VALUES "
            "($1, $2, $3, 0, 0, $4, 'zebra@example.org', $5, $5, $5, $6, '<a@b>', $7, 1)",
            inbox_id,
            message_id,
            things.workspace_id,
            f"{things.word}-box@inbox.localhost",
            things.word,
            datetime.now(UTC),
            len(raw),
        )
        await connection.execute(
            "INSERT INTO held_message (inbox_id, message_id, workspace_id, retention_days, state, "
            "recipient, from_address, from_name, subject, size_bytes) "
            "VALUES ($1, $2, $3, 0, 'refused', $4, $4, '', $4, 1)",
            inbox_id,
            message_id,
            things.workspace_id,
            things.word,
        )
    line = NewLine(inbox_id, message_id, things.workspace_id, 0, Strand(None))
    async with platform.app.database.transaction() as tx:
        await platform.app.mailbox_follower.place([line], tx)
    return ids.type_id(ids.MESSAGE, message_id)


async def _arrange(platform: Platform, things: Things) -> None:
    """A thread, a folder, a draft and a signature in the mailbox, with a change to take back."""
    box, word = f"/v1/inboxes/{things.ids['ibx']}", things.word
    things.ids["thr"] = things.ids["msg"].replace("msg_", "thr_")
    act = {"action": "move", "folder": word, "message_ids": [things.ids["msg"]]}
    reply = await platform.call("POST", f"{box}/actions", json=act, key=things.key)
    assert reply.status == 200, reply.body
    things.seq = reply.json["seq"]
    things.ids["dft"] = await write_draft(platform, things)
    note = {"kind": "signature", "name": word, "text": word}
    things.ids["txt"] = await _made(platform, things.key, f"{box}/notes", note)


async def write_draft(platform: Platform, things: Things) -> str:
    """A draft of the mailbox that could be sent."""
    draft = {"to": [f"{things.word}-to@example.org"], "subject": things.word, "text": things.word}
    return await _made(platform, things.key, f"/v1/inboxes/{things.ids['ibx']}/drafts", draft)


async def bury(platform: Platform, workspace_id: UUID, word: str) -> int:
    """A dead letter of the workspace."""
    engine = platform.app.engine
    await engine.enqueue([NewJob(MEDIA, f"kind-{word}", json.dumps(word).encode(), workspace_id)])
    jobs = await engine.lease([MEDIA], 10, 1.0, "test")
    mine = [job for job in jobs if job.kind == f"kind-{word}"]
    await engine.bury(mine, f"died of {word}")
    await engine.release([job for job in jobs if job not in mine])
    return int(mine[0].id)


async def _demo(platform: Platform, workspace_id: UUID) -> str:
    """A finished run of the workspace."""
    run_id = ids.uuid7()
    async with platform.app.database.connection() as connection:
        await connection.execute(
            "INSERT INTO demo_run (id, workspace_id, recipients, state) "
            "VALUES ($1, $2, 1, 'finished')",
            run_id,
            workspace_id,
        )
    return ids.type_id(ids.DEMO, run_id)
