"""Authentication-Results (RFC 8601): what checks came to, as one header field says it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mailyard.protocol.dkim.canonical import CRLF
from mailyard.protocol.dkim.mail import Mail

FIELD = b"authentication-results"
_COMMENT_CHARACTERS = 200
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~-]+")
_DOMAIN_OR_ADDRESS = re.compile(
    r"(?:[A-Za-z0-9!#$%&'*+.^_`{|}~=/?-]*@)?[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
)
_SERVER = re.compile(rb"[ \t\r\n]*(?:\([^()]*\)[ \t\r\n]*)*\"?([^\s;\"()]+)\"?")


@dataclass(frozen=True, slots=True)
class Method:
    """One check: `spf`, its result, why, and the properties that it was about in order."""

    name: str
    result: str
    reason: str = ""
    properties: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        words = [f"{self.name}={self.result}"]
        if self.reason:
            words.append(f"({_comment(self.reason)})")
        words += [f"{name}={_value(value)}" for name, value in self.properties if value]
        return " ".join(words)


def field_value(authserv_id: str, methods: Sequence[Method]) -> str:
    """What stands behind the field's name and colon, one method a line; any text is safe in it."""
    return ";\r\n\t".join([authserv_id, said(methods)])


def said(methods: Sequence[Method]) -> str:
    """The same without the server's name, as ARC takes it on."""
    return ";\r\n\t".join(map(str, methods)) or "none"


def without_claims(content: bytes, authserv_id: str) -> bytes:
    """`content` without the fields that speak in our name (section 5): who sends a mail on leaves
    them out, for nobody else may have written them. A field that cannot be read counts as one."""
    mail = Mail(content)
    ours = ("", authserv_id.lower())
    claims = {at for at in mail.places.get(FIELD, ()) if _server(mail.fields[at][1]) in ours}
    if not claims:
        return content
    kept = [raw for at, (_, _, raw) in enumerate(mail.fields) if at not in claims]
    return CRLF.join([*kept, b"", mail.body]) if kept else CRLF + mail.body


def _server(value: bytes) -> str:
    match = _SERVER.match(value)
    return match[1].decode("ascii", "replace").lower() if match else ""


def _comment(text: str) -> str:
    """`text` as it may stand in a comment: no parentheses, no backslash, nothing unprintable."""
    kept = text.replace("(", "[").replace(")", "]").replace("\\", "/")
    return "".join(one if one.isprintable() else " " for one in kept)[:_COMMENT_CHARACTERS]


def _value(text: str) -> str:
    """A token or an address as it is, anything else quoted (section 2.2, pvalue)."""
    if _TOKEN.fullmatch(text) or _DOMAIN_OR_ADDRESS.fullmatch(text):
        return text
    kept = "".join(one if one.isprintable() else " " for one in text)
    return '"' + kept.replace("\\", "\\\\").replace('"', '\\"') + '"'
