"""Everything that the rules find in a mail, in one call."""

from mailyard.protocol.meaning.amount import amounts_of
from mailyard.protocol.meaning.code import codes_of
from mailyard.protocol.meaning.day import days_of
from mailyard.protocol.meaning.finding import Findings
from mailyard.protocol.meaning.letter import Letter, read_letter
from mailyard.protocol.meaning.link import links_of
from mailyard.protocol.meaning.order import orders_of
from mailyard.protocol.meaning.parcel import parcels_of
from mailyard.protocol.meaning.reply import reply_of

# Grows with every change of a rule: what was kept under an older one is found anew.
RULES_VERSION = 1


def findings_in(letter: Letter) -> Findings:
    """What the rules find in a letter. Never raises."""
    links, unsubscribe = links_of(letter)
    return Findings(
        codes=codes_of(letter),
        links=links,
        unsubscribe=unsubscribe,
        parcels=parcels_of(letter),
        orders=orders_of(letter),
        days=days_of(letter),
        amounts=amounts_of(letter),
        reply=reply_of(letter),
    )


def findings_of(raw: bytes) -> Findings:
    """What the rules find in a received mail. Never raises."""
    return findings_in(read_letter(raw))
