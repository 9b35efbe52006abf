"""What a process tells of itself to others as it works: traces, and errors that nobody expected."""

import asyncio
from importlib.metadata import version
from typing import Any
from urllib.parse import unquote

from mailyard.app.application import Application
from mailyard.core.errors import ConfigurationError
from mailyard.observe import report, trace


async def observe(application: Application, role: str) -> None:
    """Begin, as far as settings ask for it. Raises ConfigurationError."""
    if application.settings.otlp_url:
        _trace(application, role)
    if application.settings.sentry_dsn:
        _report(application, role)


def _trace(application: Application, role: str) -> None:
    from mailyard.observe.tracers.otlp import OtlpTracer

    settings = application.settings
    url = settings.otlp_url.rstrip("/")
    if not url.endswith("/v1/traces"):
        url += "/v1/traces"
    headers = {"Content-Type": "application/x-protobuf", **_headers(settings.otlp_headers)}
    tracer = OtlpTracer(
        application.poster(url, headers),
        service=f"mailyard-{role}",
        instance=str(application.process_id),
        version=version("mailyard"),
        share=settings.traces_share,
    )
    trace.use(tracer)

    async def end() -> None:
        trace.use(None)
        await tracer.close()

    application.ends.append(end)


def _headers(text: str) -> dict[str, str]:
    """`Name=value,Other=value`, values as in a URL (OTEL_EXPORTER_OTLP_HEADERS has them so)."""
    found = {}
    for part in filter(None, text.split(",")):
        name, sign, value = part.partition("=")
        if not sign or not name.strip():
            raise ConfigurationError("MAILYARD_OTLP_HEADERS is like Authorization=Bearer x,Name=y")
        found[name.strip()] = unquote(value.strip())
    return found


def _report(application: Application, role: str) -> None:
    dsn = report.read_dsn(application.settings.sentry_dsn)
    reporter = report.Reporter(
        application.poster(dsn.url, dsn.headers),
        release=f"mailyard@{version('mailyard')}",
        tags={"role": role},
    )
    report.use(reporter)
    running = asyncio.create_task(reporter.run(), name="error-reports")
    loop = asyncio.get_running_loop()

    def unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            report.note(error, "event loop")
        loop.default_exception_handler(context)

    loop.set_exception_handler(unhandled)

    async def end() -> None:
        report.use(None)
        running.cancel()
        await reporter.close()

    application.ends.append(end)
