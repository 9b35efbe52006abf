"""DMARC of a received mail (RFC 7489, RFC 9989): does a check speak for who the From names?"""

from mailyard.protocol.dmarc.check import (
    DmarcResult,
    DmarcStatus,
    Identifier,
    check_dmarc,
    first_question,
)
from mailyard.protocol.dmarc.policy import Policy, read_policy

__all__ = [
    "DmarcResult", "DmarcStatus", "Identifier", "Policy", "check_dmarc", "first_question",
    "read_policy",
]  # fmt: skip
