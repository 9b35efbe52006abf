"""The pages as one ASGI application: routes, the visitor, errors, static files."""

from typing import Any
from urllib.parse import quote

import structlog
from litestar import Litestar, Response
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from mailyard.access.authenticate import Authenticator
from mailyard.app import Application
from mailyard.core.errors import MailyardError, NotAuthenticated
from mailyard.web.ui import (
    access_pages,
    account_pages,
    analysis_pages,
    campaign_pages,
    contact_pages,
    dead_letter_pages,
    delivery_pages,
    destination_pages,
    domain_pages,
    draft_pages,
    feature_pages,
    gate,
    inbox_pages,
    inbox_settings_pages,
    installation_pages,
    limit_pages,
    mailbox_pages,
    message_pages,
    monitoring_pages,
    overview_pages,
    policy_pages,
    provider_hook_pages,
    provider_pages,
    receiving_pages,
    region_pages,
    report_pages,
    reserved_pages,
    search_pages,
    segment_pages,
    sender_pages,
    suppression_pages,
    template_frame,
    template_pages,
    topic_pages,
    tracking_pages,
    usage_pages,
    webhook_pages,
)
from mailyard.web.ui.asset import give_asset
from mailyard.web.ui.frame import PAGE_HEADERS, PageRequest, environment

_LOG = structlog.get_logger("mailyard.pages")

_TITLES = {403: "Not allowed", 404: "Not found", 429: "Too many tries", 503: "Not available now"}


def _error_page(request: PageRequest, status: int, detail: str) -> Response[str]:
    text = request.app.state.environment.get_template("error.html").render(
        title=_TITLES.get(status, "This did not work"), detail=detail
    )
    return Response(text, status_code=status, media_type="text/html", headers=PAGE_HEADERS)


def on_mailyard_error(request: PageRequest, error: MailyardError) -> Response[Any]:
    """A page for people; whoever is not signed in is sent to the door."""
    if isinstance(error, NotAuthenticated):
        if request.url.path.startswith("/fragments/"):
            return Response("", status_code=401, headers={"HX-Redirect": "/sign-in"})
        return Redirect(f"/sign-in?next={quote(request.url.path)}", status_code=303)
    return _error_page(request, error.status, error.message)


def on_http_error(request: PageRequest, error: HTTPException) -> Response[Any]:
    """What Litestar itself refuses: unknown paths, wrong methods, bodies that are too large."""
    return _error_page(request, error.status_code, error.detail)


def on_unexpected_error(request: PageRequest, error: Exception) -> Response[Any]:
    """A defect of ours: the log gets everything, the page nothing of it."""
    _LOG.error("page failed", path=request.url.path, exc_info=error)
    return _error_page(request, 500, "Something broke on our side. It has been logged.")


def build_pages(application: Application) -> Litestar:
    """The pages over the services of `application`."""
    modules = (
        access_pages,
        account_pages,
        analysis_pages,
        campaign_pages,
        contact_pages,
        dead_letter_pages,
        delivery_pages,
        destination_pages,
        domain_pages,
        draft_pages,
        inbox_pages,
        feature_pages,
        region_pages,
        installation_pages,
        inbox_settings_pages,
        limit_pages,
        mailbox_pages,
        message_pages,
        monitoring_pages,
        overview_pages,
        policy_pages,
        provider_pages,
        provider_hook_pages,
        report_pages,
        receiving_pages,
        reserved_pages,
        search_pages,
        suppression_pages,
        template_frame,
        segment_pages,
        sender_pages,
        template_pages,
        topic_pages,
        tracking_pages,
        webhook_pages,
        usage_pages,
    )
    return Litestar(
        route_handlers=[
            give_asset,
            gate.ask_for_password,
            gate.sign_in,
            gate.ask_for_press,
            gate.sign_in_by_link,
            gate.sign_out,
            *account_pages.PUBLIC,
            *(handler for module in modules for handler in module.HANDLERS),
        ],
        dependencies={"visit": Provide(gate.visit)},
        exception_handlers={
            MailyardError: on_mailyard_error,
            HTTPException: on_http_error,
            Exception: on_unexpected_error,
        },
        state=State(
            {
                "application": application,
                "environment": environment(sign_up=application.settings.sign_up),
                "authenticator": Authenticator(
                    keys=application.keys, sessions=application.sessions
                ),
            }
        ),
        openapi_config=None,
        logging_config=None,
        request_max_body_size=2 * 1024 * 1024,
    )
