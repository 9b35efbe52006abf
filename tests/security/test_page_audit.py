"""What a person changes on a page is in the audit log, in the transaction of the change.

Every form of the pages is sent twice: with a log that cannot be written, when nothing may change,
and as it should be.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest
from api_platform import Platform, Reply, start
from api_things import A_MINUTE_AGO, Things, bury, make_things
from full_log import contents, differing, the_log_is_full

from mailyard.access.audit import AuditEntry
from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.access.session import StartedSession
from mailyard.core.ids import INBOX, WORKSPACE, type_id
from mailyard.mailbox.inbox_value import NewInbox
from mailyard.storage.database import Database
from mailyard.web.ui.pages import build_pages

_PARTS = "multipart/form-data; boundary=xyz"
_CSV = "email\r\nx@example.org\r\n"


@dataclass(frozen=True, slots=True)
class Form:
    """A form as a browser sends it. `{ibx}` is the id of the visitor's thing of that kind."""

    path: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)
    upload: bool = False
    file: str = _CSV


_FORMS = (
    Form("/inboxes", "inbox.create", {"address": "new-one", "labels": "a, b"}),
    Form("/inboxes/{ibx}/extend", "inbox.extend"),
    Form("/inboxes/{ibx}/life", "inbox.extend", {"ttl_s": "7 days"}),
    Form("/inboxes/{ibx}/settings", "inbox.change", {"name": "new", "bytes_max": "10 MB"}),
    Form("/inboxes/{ibx}/search", "search.inbox", {"by_meaning": "no"}),
    Form("/receiving-policy", "mail_policy.set", {"blocked": "bad.example", "greylist_s": "5 min"}),
    Form("/inboxes/reserved", "address.reserve", {"addresses": "new-held"}),
    Form("/inboxes/reserved/release", "address.release", {"address": "new-held@inbox.localhost"}),
    Form("/search/settings", "search.change", {"language": "german", "every_word": "yes"}),
    Form("/analysis", "analysis.policy", {"on_arrival": "yes", "aspect_summary": "yes"}),
    Form("/analysis/models", "model.create", {"name": "new", "kind": "openai", "model": "m"}),
    Form("/analysis/models/{mdl}/switch", "model.change", {"on": "no"}),
    Form("/analysis/models/{mdl}/remove", "model.remove"),
    Form("/inboxes/{ibx}/messages/{msg}/analyse", "analysis.ask"),
    Form("/receiving", "receiving_domain.create", {"name": "new.in.example.org"}),
    Form("/receiving/{rdm}/check", "receiving_domain.check"),
    Form("/receiving/{rdm}/plus", "receiving_domain.change", {"plus": "no"}),
    Form("/receiving/{rdm}/routes", "inbound_route.create", {"pattern": "new", "action": "drop"}),
    Form("/receiving/{rdm}/routes/{irt}/remove", "inbound_route.remove"),
    Form("/receiving/{rdm}/remove", "receiving_domain.remove"),
    Form("/inboxes/{ibx}/import", "inbox.import", upload=True, file="Subject: x\r\n\r\nhi\r\n"),
    Form("/inboxes/{ibx}/act", "mailbox.star", {"action": "star", "message": "{msg}"}),
    Form("/inboxes/{ibx}/undo", "mailbox.undo", {"seq": "{seq}"}),
    Form("/inboxes/{ibx}/drafts", "draft.create", {"mode": "reply", "message": "{msg}"}),
    Form("/inboxes/{ibx}/drafts/{dft}", "draft.save", {"revision": "1", "text": "changed"}),
    Form(
        "/inboxes/{ibx}/drafts/{dft}/send",
        "draft.send",
        {"revision": "2", "to": "b@example.org", "text": "changed again"},
    ),
    Form("/inboxes/{ibx}/drafts/{dft}/take-back", "draft.take_back"),
    Form("/inboxes/{ibx}/drafts/{dft}/delete", "draft.delete"),
    Form("/inboxes/{ibx}/notes", "note.create", {"name": "new", "text": "t"}),
    Form("/inboxes/{ibx}/notes/{txt}/delete", "note.delete"),
    Form("/templates", "template.create", {"name": "new", "subject": "s", "text": "t"}),
    Form("/templates/{tpl}/draft", "template.draft", {"subject": "s", "body": "{% wrong"}),
    Form("/templates/{tpl}/draft/drop", "template.draft"),
    Form("/templates/{tpl}", "template.publish", {"subject": "s", "text": "{{ x }}"}),
    Form("/templates/{tpl}/versions/{version}/use", "template.use_version"),
    Form(
        "/templates/{tpl}/test",
        "email.send",
        {"subject": "s", "body": "t", "from": "a@example.org", "to": "b@example.org"},
    ),
    Form(
        "/campaigns",
        "campaign.create",
        {"name": "new", "template_id": "{tpl}", "audience": "{lst}", "sender": "a@example.org"},
    ),
    Form("/topics", "topic.create", {"name": "new", "on_request": "on"}),
    Form("/tracking/domains", "tracking_domain.create", {"name": "links.otter.example.org"}),
    Form("/tracking/domains/{tdm}/check", "tracking_domain.check"),
    Form("/tracking/imprint", "imprint.change", {"physical_address": "1 Any Street"}),
    Form("/tracking/domains/{tdm}/remove", "tracking_domain.remove"),
    Form("/topics/{top}/delete", "topic.delete"),
    Form("/segments", "segment.create", {"name": "new", "filter": "opened"}),
    Form("/segments/{seg}", "segment.change", {"name": "new name", "filter": "not opened"}),
    Form("/segments/{seg}/delete", "segment.delete"),
    Form("/imports", "import.create", {"list": "imported"}, upload=True),
    Form("/deliveries/{dlv}/cancel", "delivery.cancel"),
    Form("/suppressions", "suppression.add", {"address": "new@example.org", "stream": "all"}),
    Form("/suppressions/{sup}/remove", "suppression.remove"),
    Form(
        "/suppressions/import",
        "suppression.import",
        {"stream": "all", "reason": "by_hand"},
        upload=True,
    ),
    Form(
        "/provider-hooks",
        "provider_hook.create",
        {"kind": "mailgun", "name": "new", "secret": "a signing key of mailgun"},
    ),
    Form("/provider-hooks/{hok}/remove", "provider_hook.remove"),
    Form(
        "/webhooks",
        "webhook.create",
        {"name": "new", "url": "https://a.example/", "kinds": "message.received"},
    ),
    Form(
        "/webhooks/{whk}",
        "webhook.change",
        {"name": "new", "url": "https://b.example/", "kinds": "message.received"},
    ),
    Form("/webhooks/{whk}/redrive", "webhook.redrive"),
    Form("/webhooks/{whk}/replay", "webhook.replay", {"since": A_MINUTE_AGO}),
    Form("/webhooks/{whk}/rotate", "webhook.rotate"),
    Form("/webhooks/{whk}/test", "webhook.test"),
    Form("/webhooks/{whk}/switch", "webhook.change", {"on": "no"}),
    Form("/webhooks/{whk}/remove", "webhook.remove"),
    Form("/limits", "limits.change", {"time_zone": "Europe/Rome", "emails_per_day": "500"}),
    Form("/providers", "provider.create", {"name": "new", "kind": "file", "settings": ""}),
    Form("/providers/{prv}", "provider.change", {"settings": "host = a.example\nusername = me"}),
    Form("/providers/{prv}/switch", "provider.change", {"on": "no"}),
    Form(
        "/providers/{prv}/test", "provider.test", {"from": "a@example.org", "to": "b@example.org"}
    ),
    Form("/providers/routes", "route.replace", {"routes": "all | always | relay"}),
    Form("/providers/{prv}/remove", "provider.remove"),
    Form("/features/{feature}", "feature.roll_out", {"percent": "50"}),
    Form("/business/plan", "workspace.plan", {"workspace": "{wsp}", "plan": ""}),
    Form("/access/keys", "key.create", {"name": "new", "scopes": "emails:read"}),
    Form("/access/keys/{key}/revoke", "key.revoke"),
    Form("/access/members", "user.add", {"email": "new@example.org", "role": "viewer"}),
    Form("/access/invitations", "invitation.create", {"email": "i@example.org", "role": "viewer"}),
    Form("/access/invitations/{inv}/withdraw", "invitation.withdraw"),
    Form("/access/password", "user.set_password", {"password": "correct horse battery"}),
    Form("/domains", "domain.create", {"name": "new.example.org"}),
    Form("/domains/{dom}/check", "domain.check"),
    Form("/domains/{dom}/return-path", "domain.change", {"return_path": "bounces"}),
    Form("/domains/{dom}/rotate", "domain.rotate"),
    Form("/domains/{dom}/remove", "domain.remove"),
    Form("/demo", "demo.start", {"recipients": "1"}),
    Form("/dead-letters/redrive", "dead_letter.redrive", {"id": "{dead}"}),
    Form("/dead-letters/discard", "dead_letter.discard", {"id": "{dead}"}),
    Form(
        "/destinations/pause",
        "destination.pause",
        {"destination": "mx.otter.example", "seconds": "3600"},
    ),
    Form("/destinations/resume", "destination.resume", {"destination": "mx.otter.example"}),
    Form("/inboxes/{ibx}/senders", "inbox.sender_policy", {"on_forged": "refuse"}),
    Form("/inboxes/{ibx}/held/{msg}/release", "message.release"),
    Form("/inboxes/{ibx}/messages/{msg}/end", "message.end", {"ttl_s": "86400"}),
    Form("/inboxes/{ibx}/messages/{msg}/delete", "message.delete"),
    Form("/inboxes/{spare}/purge", "inbox.purge", {"address": "spare@inbox.localhost"}),
    Form("/inboxes/{ibx}/delete", "inbox.delete"),
    Form("/sign-out", "session.end"),
)
_MOVES = tuple(
    Form(f"/campaigns/{{cmp}}/{word}", f"campaign.{word}")
    for word in ("start", "pause", "resume", "cancel")
)
# A file that was refused stays, as failed, and the list that was made for it.
_KEPT_WHEN_REFUSED = {"/imports": {"contact_import", "import_part", "contact_list"}}
_WITHOUT_A_VISITOR = {
    "/sign-in",
    "/sign-in/{token:str}",
    "/sign-up",
    "/sign-up/{token:str}",
    "/reset",
    "/reset/{token:str}",
    "/invitation/{token:str}",
    # A person's own sessions: tried in tests/integration/test_accounts.py.
    "/account/sessions/{session_id:str}/end",
    "/account/sessions/end",
    "/account/workspace",
}
# POST only because what is shown, or asked, is long.
_READS = {
    "/templates/{template_id:str}/frame",
    "/fragments/segments/estimate",
    "/fragments/segments/count",
}


@dataclass(slots=True)
class Visitor:
    """A signed-in owner with one of everything."""

    platform: Platform
    things: Things
    session: StartedSession

    async def send(self, form: Form) -> Reply:
        """Post the form."""
        own = type_id(WORKSPACE, self.things.workspace_id)
        known = {
            **self.things.ids,
            "wsp": own,
            "dead": str(self.things.dead_letter),
            "seq": str(self.things.seq),
            "version": "1",
            "feature": "person-limit",
        }
        fields = {name: value.format(**known) if value[:1] == "{" and " " not in value else value
                  for name, value in form.fields.items()}  # fmt: skip
        fields["csrf"] = self.session.csrf_token
        body, media_type = urlencode(fields), "application/x-www-form-urlencoded"
        if form.upload:
            parts = [f'name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
            parts.append(f'name="file"; filename="x.csv"\r\n\r\n{form.file}')
            lines = [f"--xyz\r\nContent-Disposition: form-data; {part}\r\n" for part in parts]
            body, media_type = "".join(lines) + "--xyz--\r\n", _PARTS
        headers = {
            "cookie": f"{SESSION_COOKIE}={self.session.token}",
            "content-type": media_type,
        }
        path = form.path.format(**known)
        return await self.platform.call("POST", path, body=body.encode(), key=None, headers=headers)

    async def entries(self) -> list[AuditEntry]:
        """The whole log."""
        return await self.platform.app.audit.list(self.platform.workspace_id, limit=10_000)


@pytest.fixture
async def visitor(database: Database) -> AsyncIterator[Visitor]:
    platform = await start(database, with_pages=True)
    things = await make_things(platform, platform.workspace_id, platform.key, "otter")
    session = await platform.app.sessions.start(
        platform.first.user_id, platform.workspace_id, "a browser"
    )
    [spare] = await platform.app.inboxes.create(platform.workspace_id, [NewInbox("spare")])
    things.ids["spare"] = type_id(INBOX, spare.id)
    yield Visitor(platform, things, session)
    await platform.close()


async def test_every_form_is_among_those_below(visitor: Visitor) -> None:
    pages = build_pages(visitor.platform.app)
    posted = {
        path
        for route in pages.routes
        if "POST" in getattr(route, "methods", ())
        for path in [route.path]
    }
    mine = {form.path for form in (*_FORMS, *_MOVES)}
    shapes = {_shape(path) for path in mine}
    assert {_shape(path) for path in posted - _WITHOUT_A_VISITOR - _READS} == shapes


@pytest.mark.parametrize("forms", [_FORMS, _MOVES], ids=["pages", "moves"])
async def test_each_form_changes_with_its_row_or_not_at_all(
    visitor: Visitor, forms: tuple[Form, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = visitor.platform
    for form in forms:
        if form.path.startswith("/dead-letters"):
            visitor.things.dead_letter = await bury(platform, platform.workspace_id, "otter")
        if form.action != "email.send":  # an email's own row is its entry
            before = await contents(platform.app.database)
            with the_log_is_full(monkeypatch):
                refused = await visitor.send(form)
            assert refused.status >= 400, form.path
            changed = differing(before, await contents(platform.app.database))
            assert changed <= _KEPT_WHEN_REFUSED.get(form.path, set()), form.path
        known = {entry.id for entry in await visitor.entries()}
        reply = await visitor.send(form)
        assert reply.status in (200, 303), (form.path, reply.body[-2000:])
        fresh = {entry.action: entry for entry in await visitor.entries() if entry.id not in known}
        assert form.action in fresh, (form.path, fresh)
        entry = fresh[form.action]
        assert (entry.actor_kind, entry.before is None and entry.after is None) == ("user", False)


async def test_a_dead_letter_that_no_number_names_is_refused(visitor: Visitor) -> None:
    cookie = {"cookie": f"{SESSION_COOKIE}={visitor.session.token}"}
    for number in ("x", "9" * 19, "9" * 5000):
        path = "/dead-letters?before=" + number
        listed = await visitor.platform.call("GET", path, key=None, headers=cookie)
        chosen = await visitor.send(Form("/dead-letters/redrive", "", {"id": number}))
        assert (listed.status, chosen.status) == (422, 422), number[:30]


async def test_a_number_of_thousands_of_digits_fails_no_page(visitor: Visitor) -> None:
    cookie = {"cookie": f"{SESSION_COOKIE}={visitor.session.token}"}
    path = "/deliveries?days=" + "9" * 5000
    shown = await visitor.platform.call("GET", path, key=None, headers=cookie)
    begun = await visitor.send(Form("/demo", "", {"recipients": "9" * 5000}))
    assert (shown.status, begun.status) == (200, 422)


def _shape(path: str) -> str:
    """The path with its parameters as stars; the four moves are one form."""
    words = ["*" if word.startswith("{") else word for word in path.split("/")]
    if words[1] == "campaigns" and len(words) == 4:
        words[3] = "*"
    return "/".join(words)
