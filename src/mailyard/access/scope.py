"""Scopes: what an API key, or a role, may do. One table, read by the gate and by the documentation.

`x:write` includes `x:read`; `admin` includes everything.
"""

from collections.abc import Iterable

from mailyard.core.errors import InvalidInput

ADMIN = "admin"
EMAILS_SEND = "emails:send"
EMAILS_READ = "emails:read"
INBOXES_READ = "inboxes:read"
INBOXES_WRITE = "inboxes:write"
ANALYSIS_READ = "analysis:read"
ANALYSIS_WRITE = "analysis:write"
TEMPLATES_READ = "templates:read"
TEMPLATES_WRITE = "templates:write"
SUPPRESSIONS_READ = "suppressions:read"
SUPPRESSIONS_WRITE = "suppressions:write"
HOOKS_READ = "hooks:read"
HOOKS_WRITE = "hooks:write"
WEBHOOKS_READ = "webhooks:read"
WEBHOOKS_WRITE = "webhooks:write"
DOMAINS_READ = "domains:read"
DOMAINS_WRITE = "domains:write"
PROVIDERS_READ = "providers:read"
PROVIDERS_WRITE = "providers:write"
CONTACTS_READ = "contacts:read"
CONTACTS_WRITE = "contacts:write"
CAMPAIGNS_READ = "campaigns:read"
CAMPAIGNS_WRITE = "campaigns:write"
SHAPING_READ = "shaping:read"
SHAPING_WRITE = "shaping:write"
QUEUES_READ = "queues:read"
QUEUES_WRITE = "queues:write"
EVENTS_READ = "events:read"
STATS_READ = "stats:read"
DEMOS_READ = "demos:read"
DEMOS_WRITE = "demos:write"

SCOPES: dict[str, str] = {
    ADMIN: "Everything, and the workspace itself: keys, members, the audit log.",
    EMAILS_SEND: "Send emails and cancel those that have not left.",
    EMAILS_READ: "Read sent emails, their deliveries and the deliveries' history.",
    INBOXES_READ: "Read inboxes and the mail in them, and wait for mail.",
    INBOXES_WRITE: "Make, change and delete inboxes and the mail in them.",
    ANALYSIS_READ: "Read models, when mail is analysed, and what that used.",
    ANALYSIS_WRITE: "Have mail analysed; make, change, try and remove models and their budget.",
    TEMPLATES_READ: "Read and preview templates.",
    TEMPLATES_WRITE: "Make templates and new versions of them.",
    SUPPRESSIONS_READ: "Read the addresses that get no mail.",
    SUPPRESSIONS_WRITE: "Add and remove addresses that get no mail.",
    HOOKS_READ: "Read the addresses to which providers send their events.",
    HOOKS_WRITE: "Make and remove the addresses to which providers send their events.",
    WEBHOOKS_READ: "Read webhooks and what they were told.",
    WEBHOOKS_WRITE: "Make, change, try and remove webhooks; redrive and replay.",
    DOMAINS_READ: "Read sending and receiving domains and the DNS records that they need.",
    DOMAINS_WRITE: "Make, check and delete domains, change their keys and where their mail goes.",
    PROVIDERS_READ: "Read providers, how they fare, and the routes to them.",
    PROVIDERS_WRITE: "Make, change, try and remove providers, and set routes.",
    CONTACTS_READ: "Read contacts, lists and imports.",
    CONTACTS_WRITE: "Change contacts and lists, and import CSV files.",
    CAMPAIGNS_READ: "Read campaigns and their progress.",
    CAMPAIGNS_WRITE: "Make, start, pause, resume and cancel campaigns.",
    SHAPING_READ: "Read how destinations are written to, and how TLS went.",
    SHAPING_WRITE: "Pause destinations and let them go on.",
    QUEUES_READ: "Read queue depths and dead letters.",
    QUEUES_WRITE: "Pause and resume queues, redrive and discard dead letters.",
    EVENTS_READ: "Follow the live event stream.",
    STATS_READ: "Read counters and processes.",
    DEMOS_READ: "Read demo runs and their verdicts.",
    DEMOS_WRITE: "Start a demo run.",
}

OWNER = "owner"
MEMBER = "member"
VIEWER = "viewer"
ROLES = (OWNER, MEMBER, VIEWER)


def expand(scopes: Iterable[str]) -> frozenset[str]:
    """All scopes that `scopes` grant: a write brings its read, `admin` brings everything."""
    granted = set(scopes)
    if ADMIN in granted:
        return frozenset(SCOPES)
    for name in tuple(granted):
        area, _, verb = name.partition(":")
        if verb in ("write", "send"):
            granted.add(f"{area}:read")
    return frozenset(granted & SCOPES.keys())


_BY_ROLE = {
    OWNER: expand([ADMIN]),
    MEMBER: frozenset(SCOPES) - {ADMIN},
    VIEWER: frozenset(name for name in SCOPES if name.endswith(":read")),
}


def scopes_of_role(role: str) -> frozenset[str]:
    """What a person of this role may do in the workspace."""
    return _BY_ROLE[role]


def check_scopes(scopes: Iterable[str]) -> list[str]:
    """The scopes, each once, in the table's order. Raises InvalidInput."""
    wanted = set(scopes)
    unknown = sorted(wanted - SCOPES.keys())
    if unknown:
        raise InvalidInput(
            f"unknown scope {unknown[0][:60]!r}; known: {', '.join(SCOPES)}", field="scopes"
        )
    if not wanted:
        raise InvalidInput("a key needs at least one scope", field="scopes")
    return [name for name in SCOPES if name in wanted]


def check_role(role: str) -> str:
    """The role. Raises InvalidInput for an unknown one."""
    if role not in ROLES:
        raise InvalidInput(f"a role is one of {', '.join(ROLES)}", field="role")
    return role
