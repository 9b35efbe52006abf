"""Verdicts as a header field, and who may write them (RFC 8601)."""

import pytest

from mailyard.protocol.authentication_results import without_claims


@pytest.mark.parametrize(
    "claim",
    [
        b"Authentication-Results: mx.ours.example; spf=pass",
        b"authentication-results:\r\n\tMX.Ours.Example; dkim=pass",
        b'Authentication-Results: (a "comment") "mx.ours.example" 1; none',
        b"Authentication-Results: ;;",
    ],
)
def test_a_mail_that_goes_on_says_nothing_in_our_name(claim: bytes) -> None:
    theirs = b"Authentication-Results: mx.theirs.example; spf=pass"
    mail = b"\r\n".join([claim, theirs, b"From: a@b.example", b"", b"mx.ours.example\r\n"])
    kept = b"\r\n".join([theirs, b"From: a@b.example", b"", b"mx.ours.example\r\n"])
    assert without_claims(mail, "mx.ours.example") == kept
    assert without_claims(kept, "mx.ours.example") is kept
