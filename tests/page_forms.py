"""Every form of the pages as a browser sends it, and the visitor who sends it."""

from dataclasses import dataclass, field
from urllib.parse import urlencode

from api_platform import Platform, Reply
from api_things import A_MINUTE_AGO, Things

from mailyard.access.audit import AuditEntry
from mailyard.access.authenticate import SESSION_COOKIE
from mailyard.access.session import StartedSession
from mailyard.core.ids import WORKSPACE, type_id

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


FORMS = (
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
MOVES = tuple(
    Form(f"/campaigns/{{cmp}}/{word}", f"campaign.{word}")
    for word in ("start", "pause", "resume", "cancel")
)


@dataclass(slots=True)
class Visitor:
    """Somebody who is signed in, and the things that his forms name."""

    platform: Platform
    things: Things
    session: StartedSession

    async def send(self, form: Form, named: Things | None = None) -> Reply:
        """Post the form; what its fields name are `named`, else the visitor's own things."""
        own, others = _known(self.things), _known(named or self.things)
        fields = {name: value.format(**others) if value[:1] == "{" and " " not in value else value
                  for name, value in form.fields.items()}  # fmt: skip
        fields["csrf"] = self.session.csrf_token
        body, media_type = urlencode(fields), "application/x-www-form-urlencoded"
        if form.upload:
            parts = [f'name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
            parts.append(f'name="file"; filename="x.csv"\r\n\r\n{form.file}')
            lines = [f"--xyz\r\nContent-Disposition: form-data; {part}\r\n" for part in parts]
            body, media_type = "".join(lines) + "--xyz--\r\n", _PARTS
        headers = {**self._cookie, "content-type": media_type}
        path = form.path.format(**own)
        return await self.platform.call("POST", path, body=body.encode(), key=None, headers=headers)

    async def show(self, path: str) -> Reply:
        """Open a page."""
        return await self.platform.call("GET", path, key=None, headers=self._cookie)

    @property
    def _cookie(self) -> dict[str, str]:
        return {"cookie": f"{SESSION_COOKIE}={self.session.token}"}

    async def entries(self) -> list[AuditEntry]:
        """The whole log."""
        return await self.platform.app.audit.list(self.platform.workspace_id, limit=10_000)


def _known(things: Things) -> dict[str, str]:
    """What stands for the words in braces."""
    return {
        **things.ids,
        "wsp": type_id(WORKSPACE, things.workspace_id),
        "dead": str(things.dead_letter),
        "seq": str(things.seq),
        "version": "1",
        "feature": "person-limit",
    }
