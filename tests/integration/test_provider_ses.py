"""SES against moto's server, which implements the service model that Amazon's own SDKs ship."""

import base64
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from http_script import letter, message_id_of, sending
from moto.backends import get_backend
from moto.server import ThreadedMotoServer

from mailyard.sending.transport import Outcome
from mailyard.sending.transports.ses import Ses
from mailyard.sending.transports.sigv4 import AwsCredentials

REGION = "eu-west-1"
ACCOUNT = "123456789012"  # moto's


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "AKID", "aws_secret_access_key": "secret"}
    ses: Any = boto3.client("sesv2", region_name=REGION, endpoint_url=url, **keys)
    ses.create_email_identity(EmailIdentity="s.example")
    yield url
    server.stop()


def ses(endpoint: str, **more: str) -> Ses:
    credentials = AwsCredentials("AKID", "secret")
    return Ses(region=REGION, credentials=credentials, endpoint=endpoint, **more)


def sent_messages() -> list[Any]:
    return list(get_backend("ses")[ACCOUNT][REGION].sent_messages)


async def test_a_mail_is_taken_with_its_very_bytes(endpoint: str) -> None:
    content = letter("ada@example.com", text="Grüße")
    async with sending(ses(endpoint)) as sender:
        handoff = await sender.one("ada@example.com", content=content)
    assert handoff.outcome is Outcome.ACCEPTED, handoff.reply
    message = sent_messages()[-1]
    assert message_id_of(handoff.reply) == message.id
    raw = message.raw_data
    assert content in (raw, raw.encode() if isinstance(raw, str) else raw, _decoded(raw))


def _decoded(raw: str | bytes) -> bytes:
    """Some versions of moto keep the base64 that came."""
    try:
        return base64.b64decode(raw, validate=True)
    except ValueError:
        return b""


async def test_every_mail_is_counted_by_the_other_side(endpoint: str) -> None:
    before = len(sent_messages())
    async with sending(ses(endpoint)) as sender:
        for n in range(60):
            sender.send(f"{n}@example.com")
        sender.send("one@example.com", "two@example.com")
        assert await sender.settled() == {Outcome.ACCEPTED: 62}
    assert len(sent_messages()) - before == 61
    assert {to for message in sent_messages()[before:] for to in message.destinations} == {
        *(f"{n}@example.com" for n in range(60)),
        "one@example.com",
        "two@example.com",
    }


async def test_a_sender_without_an_identity_is_refused_with_the_other_sides_words(
    endpoint: str,
) -> None:
    content = letter("ada@example.com").replace(b"shop@s.example", b"shop@other.example")
    async with sending(ses(endpoint)) as sender:
        handoff = await sender.one("ada@example.com", content=content)
    assert handoff.outcome is Outcome.NEVER
    assert handoff.reply.startswith("400 MessageRejected Did not have authority to send")
