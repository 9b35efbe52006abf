"""All routes of the API, in the order of the documentation."""

from mailyard.web.api import (
    audit,
    campaigns,
    contact_events,
    contacts,
    deliveries,
    demos,
    domains,
    emails,
    imports,
    inboxes,
    keys,
    limits,
    lists,
    live,
    members,
    messages,
    queues,
    shaping,
    stats,
    suppressions,
    template_drafts,
    templates,
    workspaces,
)
from mailyard.web.api.route import Route

ROUTES: tuple[Route, ...] = (
    *emails.ROUTES,
    *deliveries.ROUTES,
    *templates.ROUTES,
    *template_drafts.ROUTES,
    *suppressions.ROUTES,
    *domains.ROUTES,
    *inboxes.ROUTES,
    *messages.ROUTES,
    *contacts.ROUTES,
    *contact_events.ROUTES,
    *lists.ROUTES,
    *imports.ROUTES,
    *campaigns.ROUTES,
    *queues.ROUTES,
    *shaping.ROUTES,
    *stats.ROUTES,
    *demos.ROUTES,
    *keys.ROUTES,
    *members.ROUTES,
    *workspaces.ROUTES,
    *limits.ROUTES,
    *audit.ROUTES,
)

# What is served: live connections too, which have an application of their own (web/live).
DOCUMENTED: tuple[Route, ...] = (*ROUTES, *live.ROUTES)
