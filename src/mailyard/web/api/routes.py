"""All routes of the API, in the order of the documentation."""

from mailyard.web.api import (
    access,
    contacts,
    deliveries,
    emails,
    imports,
    inboxes,
    lists,
    messages,
    suppressions,
    templates,
)
from mailyard.web.api.route import Route

ROUTES: tuple[Route, ...] = (
    *emails.ROUTES,
    *deliveries.ROUTES,
    *templates.ROUTES,
    *suppressions.ROUTES,
    *inboxes.ROUTES,
    *messages.ROUTES,
    *contacts.ROUTES,
    *lists.ROUTES,
    *imports.ROUTES,
    *access.ROUTES,
)
