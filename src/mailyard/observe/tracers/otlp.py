"""Spans by OpenTelemetry, sent as OTLP over HTTP to any collector.

The SDK keeps, samples and batches them, in a thread of its own; the bytes leave through `post`, in
the event loop, as everything that leaves does. https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mailyard.core.errors import ConfigurationError
from mailyard.observe.trace import Kind, Value

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

Post = Callable[[bytes], Awaitable[None]]
SEND_EVERY_MS = 1_000
WAITING_SPANS = 8_192  # more are dropped: a trace is not worth the memory of what it tells of
BATCH_SPANS = 512
POST_S = 10.0
_NOTHING = b""


class OtlpSpan:
    """A span of the SDK's."""

    __slots__ = ("_span", "mark")

    def __init__(self, span: Any) -> None:
        self._span = span
        context = span.get_span_context()
        self.mark = _NOTHING
        if context.trace_flags.sampled:
            trace_id, span_id = context.trace_id, context.span_id
            self.mark = trace_id.to_bytes(16, "big") + span_id.to_bytes(8, "big") + b"\x01"

    def end(self, error: str = "", name: str = "", **attributes: Value) -> None:
        from opentelemetry.trace import StatusCode

        span = self._span
        if name:
            span.update_name(name)
        if attributes:
            span.set_attributes({key.replace("__", "."): one for key, one in attributes.items()})
        if error:
            span.set_status(StatusCode.ERROR, error)
        span.end()


class OtlpTracer:
    """`post` sends a body and raises when it is not taken; `share` of new traces is followed."""

    def __init__(
        self, post: Post, *, service: str, instance: str, version: str, share: float
    ) -> None:
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        except ImportError as error:
            raise ConfigurationError(
                f"MAILYARD_OTLP_URL is set, but OpenTelemetry is missing ({error.name}): install "
                "the extra, pip install 'mailyard[otel]'"
            ) from None
        about = {
            "service.name": service,
            "service.version": version,
            "service.instance.id": instance,
        }
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(share)),
            resource=Resource.create(about),
            shutdown_on_exit=False,
        )
        exporter = _exporter(post, asyncio.get_running_loop())
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=WAITING_SPANS,
                schedule_delay_millis=SEND_EVERY_MS,
                max_export_batch_size=BATCH_SPANS,
            )
        )
        self._tracer = self._provider.get_tracer("mailyard", version)
        self._kinds = _kinds()

    def begin(
        self, name: str, kind: Kind, parent: bytes, attributes: Mapping[str, Value]
    ) -> OtlpSpan:
        from opentelemetry.context import Context

        context = _under(parent) if parent else Context()
        named = {key.replace("__", "."): one for key, one in attributes.items()}
        return OtlpSpan(
            self._tracer.start_span(name, context, kind=self._kinds[kind], attributes=named)
        )

    async def close(self) -> None:
        # In a thread: its last export waits for this loop.
        await asyncio.to_thread(self._provider.shutdown)


def _kinds() -> dict[str, Any]:
    from opentelemetry.trace import SpanKind

    return {"server": SpanKind.SERVER, "client": SpanKind.CLIENT, "consumer": SpanKind.CONSUMER}


def _under(mark: bytes) -> Any:
    """The SDK's word for the mark."""
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    above = SpanContext(
        trace_id=int.from_bytes(mark[:16], "big"),
        span_id=int.from_bytes(mark[16:24], "big"),
        is_remote=True,
        trace_flags=TraceFlags(mark[24]),
    )
    return set_span_in_context(NonRecordingSpan(above), Context())


def _exporter(post: Post, loop: asyncio.AbstractEventLoop) -> Any:
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Exporter(SpanExporter):
        """Encodes in the SDK's thread, posts in the loop."""

        def export(self, spans: "Sequence[ReadableSpan]") -> SpanExportResult:
            body = encode_spans(spans).SerializeToString()
            try:
                asyncio.run_coroutine_threadsafe(_posted(post, body), loop).result(POST_S)
            except Exception:  # a collector that is away costs its spans and nothing else
                return SpanExportResult.FAILURE
            return SpanExportResult.SUCCESS

        def shutdown(self) -> None:
            return

        def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002
            return True

    return Exporter()


async def _posted(post: Post, body: bytes) -> None:
    await post(body)
