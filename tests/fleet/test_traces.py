"""One trace from an API call over its job to the answer of the SMTP server, and one for what comes
in, as a collector gets them from a whole platform: OTLP over HTTP, read back from protobuf."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.request import Request, urlopen

import monitoring_servers
import msgspec
import pytest
from monitoring_servers import Posted
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from running_platform import Platform, running_platform, wait_until

from mailyard.campaigns.chunk import FOLLOWED
from mailyard.client import Mailyard

PATIENCE_S = 180.0
SECRET = "Zebrafink"


@dataclass(frozen=True)
class Seen:
    """A span as the collector has it."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    attributes: dict[str, Any]
    seconds: float
    error: bool


def seen(posted: Posted) -> list[Seen]:
    """All spans that came."""
    found = []
    for body in posted.at("/v1/traces"):
        for of_process in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {one.key: one.value.string_value for one in of_process.resource.attributes}
            for scope in of_process.scope_spans:
                for span in scope.spans:
                    values = {
                        one.key: getattr(one.value, one.value.WhichOneof("value"))
                        for one in span.attributes
                    }
                    seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
                    found.append(
                        Seen(
                            about["service.name"],
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            values,
                            seconds,
                            span.status.code == 2,
                        )
                    )
    return found


@pytest.fixture(scope="module")
def collector() -> Iterator[Posted]:
    with monitoring_servers.receiver() as posted:
        yield posted


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, collector: Posted) -> Iterator[Platform]:
    with running_platform(
        tmp_path_factory.mktemp("traced") / "data",
        otlp_url=collector.url(""),
        otlp_headers="Authorization=Bearer%20collector",
        alerts_networks="127.0.0.0/8",
        worker_processes="1",
    ) as running:
        yield running


def call(
    platform: Platform,
    path: str,
    body: Any = None,
    traceparent: str = "",
    method: str = "POST",
    media_type: str = "application/json",
) -> Any:
    """A request as a program makes it; what is answered."""
    headers = {
        "Authorization": f"Bearer {platform.ready['api_key']}",
        "Content-Type": media_type,
    }
    if traceparent:
        headers["traceparent"] = traceparent
    content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
    url = f"{platform.ready['page']}{path}"
    with urlopen(Request(url, content, headers, method=method), timeout=30) as answer:
        return msgspec.json.decode(answer.read() or b"null")


def send(platform: Platform, to: str, traceparent: str = "") -> None:
    """An email over `/v1/emails`."""
    mail = {
        "from": "me@inbox.localhost",
        "to": [to],
        "subject": f"{SECRET} subject",
        "text": f"{SECRET} text",
    }
    call(platform, "/v1/emails", mail, traceparent)


def test_one_trace_from_the_call_over_the_job_to_the_smtp_answer(
    platform: Platform, collector: Posted
) -> None:
    trace, caller = token_hex(16), token_hex(8)
    with Mailyard(platform.ready["page"], platform.ready["api_key"]) as client:
        inbox = client.create_inbox()
        send(platform, inbox.address, f"00-{trace}-{caller}-01")
        inbox.wait_for(subject=f"{SECRET} subject", timeout_s=PATIENCE_S)

    def mine() -> dict[str, Seen]:
        return {one.name: one for one in seen(collector) if one.trace == trace}

    wait_until(lambda: len(mine()) >= 3, PATIENCE_S)
    spans = mine()
    assert set(spans) == {"POST /v1/emails", "job deliver", "hand over"}
    call, job, hand_over = spans["POST /v1/emails"], spans["job deliver"], spans["hand over"]
    assert (call.parent, job.parent, hand_over.parent) == (caller, call.span, job.span)
    assert (call.service, job.service) == ("mailyard-api", "mailyard-worker")
    assert call.attributes["http.response.status_code"] == 202
    assert job.attributes["messaging.destination.name"] == "email-send"
    assert hand_over.attributes["smtp.reply_code"] == 250
    assert hand_over.attributes["mailyard.outcome"] == "accepted"
    assert hand_over.attributes["mailyard.destination"] == inbox.address.partition("@")[2]
    assert not any(one.error for one in spans.values())

    # What comes in is a trace of its own: SMTP has no place for one.
    def incoming() -> list[tuple[Seen, Seen]]:
        spans = seen(collector)
        messages = {one.span: one for one in spans if one.name == "smtp message"}
        return [
            (messages[one.parent], one)
            for one in spans
            if one.name == "job ingest" and one.parent in messages
        ]

    wait_until(incoming, PATIENCE_S)
    message, ingest = incoming()[0]
    assert message.trace == ingest.trace != trace
    assert message.service == "mailyard-smtp" and message.attributes["smtp.reply_code"] == 250
    headers = [headers for path, headers, _ in collector.bodies if path == "/v1/traces"]
    assert all(one.get("Authorization") == "Bearer collector" for one in headers)
    whole = b"".join(collector.at("/v1/traces"))
    assert SECRET.encode() not in whole and inbox.address.encode() not in whole


def test_one_trace_from_a_campaigns_start_over_its_chunk_to_the_first_smtp_answers(
    platform: Platform, collector: Posted
) -> None:
    trace = token_hex(16)
    with Mailyard(platform.ready["page"], platform.ready["api_key"]) as client:
        addresses = [client.create_inbox().address for _ in range(FOLLOWED + 3)]
    members = call(platform, "/v1/lists", {"name": "traced"})
    rows = "\n".join(["email", *addresses, ""]).encode()
    path = f"/v1/imports?list_id={members['id']}"
    upload = call(platform, path, rows, media_type="text/csv")
    path = f"/v1/imports/{upload['id']}"
    wait_until(lambda: call(platform, path, method="GET")["state"] == "finished", PATIENCE_S)
    body = {"name": "traced", "subject": f"{SECRET} news", "text": f"{SECRET} news"}
    template = call(platform, "/v1/templates", body)
    body = {"name": "traced", "list": members["id"], "template": template["id"],
            "from": "me@inbox.localhost"}  # fmt: skip
    campaign = call(platform, "/v1/campaigns", body)
    path = f"/v1/campaigns/{campaign['id']}/start"
    call(platform, path, traceparent=f"00-{trace}-{token_hex(8)}-01")

    def mine(name: str) -> list[Seen]:
        return [one for one in seen(collector) if (one.trace, one.name) == (trace, name)]

    wait_until(
        lambda: len(mine("hand over")) >= FOLLOWED and mine("job campaign-chunk"), PATIENCE_S
    )
    [chunk], hand_overs = mine("job campaign-chunk"), mine("hand over")
    assert len(hand_overs) == FOLLOWED, "of a chunk's thousand a few"
    assert {one.parent for one in hand_overs} == {chunk.span}
    assert {one.attributes["smtp.reply_code"] for one in hand_overs} == {250}
    assert {one.attributes["mailyard.outcome"] for one in hand_overs} == {"accepted"}
    whole = b"".join(collector.at("/v1/traces"))
    assert SECRET.encode() not in whole and not any(one.encode() in whole for one in addresses)


def test_what_its_caller_does_not_sample_is_followed_nowhere(
    platform: Platform, collector: Posted
) -> None:
    dropped, kept = token_hex(16), token_hex(16)
    with Mailyard(platform.ready["page"], platform.ready["api_key"]) as client:
        inbox = client.create_inbox()
        send(platform, inbox.address, f"00-{dropped}-{token_hex(8)}-00")
        send(platform, inbox.address, f"00-{kept}-{token_hex(8)}-01")
    wait_until(
        lambda: [one for one in seen(collector) if (one.trace, one.name) == (kept, "hand over")],
        PATIENCE_S,
    )
    assert not [one for one in seen(collector) if one.trace == dropped]


def test_a_collector_that_is_away_holds_up_no_mail(tmp_path: Path) -> None:
    with (
        monitoring_servers.receiver() as posted,
        running_platform(
            tmp_path / "data",
            otlp_url="http://127.0.0.1:9",
            sentry_dsn=f"http://key@127.0.0.1:{posted.port}/1",
            alerts_networks="127.0.0.0/8",
            worker_processes="1",
        ) as running,
        Mailyard(running.ready["page"], running.ready["api_key"]) as client,
    ):
        inbox = client.create_inbox()
        send(running, inbox.address)
        inbox.wait_for(subject=f"{SECRET} subject", timeout_s=PATIENCE_S)
        assert running.stop() == 0
