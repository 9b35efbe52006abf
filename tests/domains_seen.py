"""Sending domains whose records stand, without anybody's DNS."""

from collections.abc import Sequence

from mailyard.protocol.dns_records import Purpose, State, Verdict
from mailyard.sending.domain import RETIRED, Domain


def keys_stand(domain: Domain) -> Sequence[Verdict]:
    """What a check finds when the record of every key of `domain` is as it should be."""
    return [
        Verdict(Purpose.DKIM, key.record_name, "TXT", State.GOOD)
        for key in domain.keys
        if key.state != RETIRED
    ]
