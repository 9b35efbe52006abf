"""AWS Signature Version 4 against what Amazon publishes and what botocore says."""

from datetime import UTC, datetime

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.sending.transports import sigv4
from mailyard.sending.transports.sigv4 import AwsCredentials, signed_headers

EXAMPLE = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
THEN = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


def test_amazons_published_example() -> None:
    """get-vanilla and post-vanilla of the Signature Version 4 test suite."""
    for method, signature in (
        ("GET", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("POST", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
    ):
        headers = signed_headers(
            EXAMPLE,
            method=method,
            host="example.amazonaws.com",
            path="/",
            headers={},
            body=b"",
            region="us-east-1",
            service="service",
            now=THEN,
        )
        assert headers["Authorization"] == (
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
            f"SignedHeaders=host;x-amz-date, Signature={signature}"
        )


@settings(max_examples=50)
@given(body=st.binary(max_size=200), token=st.sampled_from(["", "session/token+="]))
def test_botocore_signs_the_same(body: bytes, token: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.auth.get_current_datetime", lambda: THEN)
        request = AWSRequest(
            "POST",
            "https://email.eu-west-1.amazonaws.com:8443/v2/email/outbound-emails",
            headers={"Content-Type": "application/json"},
            data=body,
        )
        theirs = Credentials(EXAMPLE.access_key_id, EXAMPLE.secret_access_key, token or None)
        SigV4Auth(theirs, "ses", "eu-west-1").add_auth(request)
    ours = signed_headers(
        AwsCredentials(EXAMPLE.access_key_id, EXAMPLE.secret_access_key, token),
        method="POST",
        host="email.eu-west-1.amazonaws.com:8443",
        path="/v2/email/outbound-emails",
        headers={"Content-Type": "application/json"},
        body=body,
        region="eu-west-1",
        service="ses",
        now=THEN,
    )
    assert ours["Authorization"] == request.headers["Authorization"]


def test_a_secret_does_not_show_in_logs() -> None:
    assert EXAMPLE.secret_access_key not in repr(EXAMPLE)
    assert sigv4.AwsCredentials("a", "b", "c").__repr__() == "AwsCredentials('a')"
