"""What every page shares: templates, the visitor, and how a page, a redirect, an error leaves.

Pages are server-rendered; a change is a POST with the session's CSRF token, answered by a redirect.
The content security policy allows this site's own scripts and styles and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from json import dumps
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from litestar import Request, Response
from litestar.datastructures import FormMultiDict, State
from litestar.di import NamedDependency
from litestar.response import Redirect
from markupsafe import Markup

from mailyard.access.authenticate import Principal
from mailyard.access.mask import masked
from mailyard.web.ui.asset import ASSETS
from mailyard.web.ui.navigation import NAVIGATION

if TYPE_CHECKING:
    from mailyard.app import Application

PageRequest = Request[Any, Any, State]

# A redirect names its notice by a word, so that no address can put a text on the page.
NOTICES = {
    "saved": "Saved.",
    "published": "Published.",
    "tested": "The test is on its way.",
    "made": "Made.",
    "deleted": "Deleted.",
    "blocked": "It was not started: mend what blocks, or start it anyway.",
    "checked": "Looked at in DNS just now.",
    "rotated": "New keys are there. Publish their records, then check: the old ones sign on.",
    "analysed": "Asked. What comes of it stands below.",
    "extended": "Extended by a day.",
    "released": "Let go.",
    "purged": "The inbox is gone. Its bytes follow within seconds.",
    "started": "Started.",
    "scheduled": "Scheduled.",
    "paused": "Paused.",
    "resumed": "Resumed.",
    "cancelled": "Cancelled.",
    "uploaded": "Uploaded. The rows go in now.",
    "mail_imported": "Imported. The mail is seen here in a moment.",
    "redriven": "Put back into the queue.",
    "discarded": "Discarded.",
    "revoked": "Revoked.",
    "ended": "Ended.",
    "invited": "The invitation is on its way.",
    "withdrawn": "Taken back.",
    "password": "Your password is set. Other sessions have ended.",
}

PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-src 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


def _ago(moment: datetime) -> str:
    """`5 min ago`, `in 3 h`: a moment as a person says it."""
    seconds = (moment - datetime.now(UTC)).total_seconds()
    text = _seconds(abs(seconds))
    if abs(seconds) < 1:
        return "now"
    return f"in {text}" if seconds > 0 else f"{text} ago"


def _seconds(value: float) -> str:
    """A duration in its largest fitting unit."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= size:
            return f"{value / size:.0f} {unit}"
    return f"{value:.0f} s"


def _size(size_bytes: int) -> str:
    value = float(size_bytes)
    for unit in ("B", "KB", "MB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GB"


def _number(value: float) -> str:
    """With narrow spaces between thousands, which every reader's language understands."""
    return f"{value:,.0f}".replace(",", "\u202f")


def _pretty(value: Any) -> str:
    return "–" if value is None else dumps(value, indent=1, ensure_ascii=False, sort_keys=True)


def environment(*, sign_up: bool = False) -> Environment:
    """The pages' Jinja2 templates. An unknown name in one is an error, never an empty text."""
    env = Environment(
        loader=PackageLoader("mailyard.web.ui", "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    env.filters.update(ago=_ago, seconds=_seconds, size=_size, number=_number, pretty=_pretty)
    env.globals["navigation"] = NAVIGATION
    env.globals["asset"] = ASSETS.url
    env.globals["sign_up"] = sign_up
    return env


@dataclass(frozen=True, slots=True)
class Person:
    """Who is shown at the foot of the navigation."""

    email: str
    role: str
    workspace_name: str


class PageVisit:
    """One request of a signed-in person: who, their form, the services, and the answers."""

    def __init__(
        self,
        *,
        application: "Application",
        environment: Environment,
        principal: Principal,
        person: Person,
        csrf_token: str,
        form: FormMultiDict,
        query: Mapping[str, str],
        section: str,
    ) -> None:
        self.application = application
        self.principal = principal
        self.form = form
        self._environment = environment
        self._person = person
        self._csrf_token = csrf_token
        self._query = query
        self._section = section

    def field(self, name: str) -> str:
        """A field of the form, stripped; empty when absent."""
        value = self.form.get(name, "")
        return value.strip() if isinstance(value, str) else ""

    def ask(self, name: str) -> str:
        """A parameter of the query, stripped; empty when absent."""
        return self._query.get(name, "").strip()

    def page(self, template: str, status: int = 200, **context: Any) -> Response[str]:
        """A whole page."""
        text = self._environment.get_template(template).render(
            person=self._person,
            current=self._section,
            csrf=self._csrf_field,
            notice=NOTICES.get(self.ask("done")),
            **{"problem": None, **context},
        )
        return Response(text, status_code=status, media_type="text/html", headers=PAGE_HEADERS)

    def fragment(self, template: str, **context: Any) -> Response[str]:
        """A part of a page that is refreshed live."""
        text = self._environment.get_template(template).render(csrf=self._csrf_field, **context)
        return Response(text, media_type="text/html", headers=PAGE_HEADERS)

    def query_with(self, **changes: str) -> str:
        """The query without its cursor and notice, with `changes`, encoded for a link."""
        kept = {
            name: value
            for name, value in self._query.items()
            if value and name not in ("before", "after", "done")
        }
        return urlencode({**kept, **changes})

    def go(self, path: str, done: str | None = None) -> Redirect:
        """To another page after a change."""
        return Redirect(f"{path}?done={done}" if done else path, status_code=303)

    def _csrf_field(self) -> Markup:
        return Markup('<input type="hidden" name="csrf" value="{}">').format(
            masked(self._csrf_token)
        )


# What a handler asks for: the `visit` that `gate.visit` makes of the request.
Visit: TypeAlias = NamedDependency[PageVisit]
