"""A DMARC record as a receiver reads it: what is wrong in it is passed over (RFC 9989 section 4.7,
RFC 7489 section 6.3), where `dns_dmarc` tells its owner."""

import re
from dataclasses import dataclass
from functools import lru_cache

from mailyard.protocol.dns_dmarc import RECORD_CHARACTERS, is_dmarc

_TAG = re.compile(r"[ \t]*([A-Za-z][A-Za-z0-9_]*)[ \t]*=[ \t]*([\x20-\x3a\x3c-\x7e]*)")
_REPORT = re.compile(r"[ \t]*(?:mailto:[^\s,@]+@[^\s,@]+|https?://\S+)", re.IGNORECASE)
POLICIES = ("none", "quarantine", "reject")


@dataclass(frozen=True, slots=True)
class Policy:
    """What a record asks for. `absent` is for subdomains that do not exist (np=), `below` for the
    others (sp=). `testing`: nothing is to be done on its account yet (t=y, or pct=0 of before).
    `public`: the name is a public suffix (psd=y, or n for the opposite, u when it does not say).
    """

    policy: str
    below: str
    absent: str
    dkim_strict: bool
    spf_strict: bool
    testing: bool
    public: str


@lru_cache(1024)  # few records stand behind most mail
def read_policy(text: str) -> Policy | None:
    """The record, or None when it counts as none: without a readable policy, and without an
    address for reports for which it would count as p=none (RFC 9989 section 4.7)."""
    if len(text) > RECORD_CHARACTERS or not is_dmarc(text):
        return None
    tags: dict[str, str] = {}
    for part in text.split(";"):
        match = _TAG.fullmatch(part)
        if match is not None:
            tags.setdefault(match[1].lower(), match[2].strip().lower())
    policy = tags.get("p", "")
    if policy not in POLICIES or tags.get("sp", "none") not in POLICIES:
        if not _REPORT.match(tags.get("rua", "")):
            return None
        tags.pop("sp", None)
        policy = "none"
    below = tags.get("sp", policy)
    absent = tags.get("np", below)
    public = tags.get("psd", "u")
    return Policy(
        policy,
        below,
        absent if absent in POLICIES else below,
        tags.get("adkim") == "s",
        tags.get("aspf") == "s",
        tags.get("t") == "y" or tags.get("pct") == "0",
        public if public in ("y", "n") else "u",
    )
