"""Sender rewriting (SRS): what mail that is sent on leaves under, so that SPF holds for it.

    SRS0=hhhhhmmmmmm=tt=peer.example=ada@back.example      ada@peer.example sent it first
    SRS1=hhhhhttmmmmmm=first.example==HHH=TT=…@back.example  somebody had rewritten it before

The form is that of "The Sender Rewriting Scheme" (libsrs2.net/srs/srs.pdf): a hash that is for its
maker alone, the day (base32, modulo 1024), the domain and the local part of who is rewritten; a
sender that carries SRS0 or SRS1 already becomes SRS1, which names the first forwarder only, so that
addresses do not grow with every hop. Where SRS keeps nothing of its own, the hash here also holds
the millisecond of the delivery's id: a bounce leads to its delivery by the primary key, is told in
its story, and whom it goes on to is what the stored mail says. A forged hash so leads to nothing.

A local part has 64 octets (RFC 5321 section 4.5.3.1.1). What does not fit is not rewritten so, and
leaves under the delivery's own return-path (`sending.return_path`), which is shorter.

Peers change the case of local parts: letters count as lower case everywhere.
"""

import hmac
import re
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from mailyard.core.errors import InvalidInput
from mailyard.core.limits import SMTP_LOCAL_PART_BYTES
from mailyard.protocol.address import split_address

MAX_AGE_DAYS = 31  # a bounce comes within the days that a mail is tried
_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"  # RFC 4648 section 6, lower case
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}
_DAYS = 1024
_DAY_MS = 86_400_000
_LOW_BITS = 3  # of the delivery's id, beside its millisecond within the day (27 bits)
_MAC = 5  # letters
_PURPOSE = b"mailyard sender rewriting 1\0"
_B32 = "[a-z2-7]"
_SRS0 = re.compile(rf"srs0=({_B32}{{5}})({_B32}{{6}})=({_B32}{{2}})=([^=@]+)=(.+)")
_SRS1 = re.compile(rf"srs1=({_B32}{{5}})({_B32}{{8}})=([^=@]+)=([=+-].+)")
_THEIRS = re.compile(r"srs([01])([=+-].+)", re.IGNORECASE)
_THEIR_SRS1 = re.compile(r"[=+-][^=]+=([^=@]+)=([=+-].+)")
_PLAIN = re.compile(r"[!-~]+")


class Rewritten(NamedTuple):
    """What an address of ours says: the delivery lies in [lowest, beyond) and fits `is_of`;
    `sender` is where its mail came from, in lower case."""

    lowest: UUID
    beyond: UUID
    low_bits: int
    sender: str

    def is_of(self, delivery_id: UUID) -> bool:
        """Whether the delivery can be the one."""
        low = self.lowest <= delivery_id < self.beyond
        return low and delivery_id.int & ((1 << _LOW_BITS) - 1) == self.low_bits


def looks_rewritten(address: str) -> bool:
    """Whether `address` has the form of a rewritten sender, whoever's."""
    return _THEIRS.match(address) is not None


class SenderRewriting:
    """Writes and reads rewritten senders. `keys`: the one that signs, then those before it."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

    def rewritten(self, delivery_id: UUID, sender: str, domain: str) -> str | None:
        """What a mail of `sender` leaves under at `domain`; None where that does not fit."""
        try:
            local, sender_domain = split_address(sender)
        except InvalidInput:
            return None
        if (
            not _PLAIN.fullmatch(local + sender_domain)
            or local[0] == '"'
            or sender_domain[0] == "["
        ):
            return None
        when = _letters(_stamp(delivery_id), 8)
        theirs = _THEIRS.fullmatch(local)
        if theirs is None:
            what = f"{sender_domain}={local}"
            mac = self._mac(self._keys[0], when, what)
            written = f"SRS0={mac}{when[2:]}={when[:2]}={what}"
        else:
            again = _THEIR_SRS1.fullmatch(theirs[2]) if theirs[1] == "1" else None
            what = f"{again[1]}={again[2]}" if again else f"{sender_domain}={theirs[2]}"
            written = f"SRS1={self._mac(self._keys[0], when, what)}{when}={what}"
        if len(written) > SMTP_LOCAL_PART_BYTES:
            return None
        return f"{written}@{domain}"

    def read(self, address: str, now: datetime) -> Rewritten | None:
        """What is behind a rewritten sender of ours; None for another's, a forged or an old one."""
        local = address.rpartition("@")[0].lower()
        if (first := _SRS0.fullmatch(local)) is not None:
            mac, rest, day, domain, name = first.groups()
            when, what, sender = day + rest, f"{domain}={name}", f"{name}@{domain}"
        elif (again := _SRS1.fullmatch(local)) is not None:
            mac, when, domain, name = again.groups()
            what, sender = f"{domain}={name}", f"srs0{name}@{domain}"
        else:
            return None
        good = False
        for key in self._keys:
            good |= hmac.compare_digest(self._mac(key, when, what), mac)
        return _opened(when, sender, now) if good else None

    @staticmethod
    def _mac(key: bytes, when: str, what: str) -> str:
        digest = hmac.digest(key, _PURPOSE + f"{when}\0{what.lower()}".encode(), "sha256")
        return _letters(int.from_bytes(digest[:4], "big") >> 7, _MAC)


def _stamp(delivery_id: UUID) -> int:
    """The day, the millisecond in it, and the last bits of an id (RFC 9562 section 5.7)."""
    day, in_day_ms = divmod(delivery_id.int >> 80, _DAY_MS)
    low = delivery_id.int & ((1 << _LOW_BITS) - 1)
    return (day % _DAYS) << 30 | in_day_ms << _LOW_BITS | low


def _opened(when: str, sender: str, now: datetime) -> Rewritten | None:
    stamp = 0
    for letter in when:
        stamp = stamp << 5 | _VALUES[letter]
    today = int(now.timestamp()) // 86_400
    age = (today - (stamp >> 30)) % _DAYS
    age -= _DAYS if age == _DAYS - 1 else 0  # another machine's clock is past midnight already
    in_day_ms = stamp >> _LOW_BITS & ((1 << 27) - 1)
    if age > MAX_AGE_DAYS or in_day_ms >= _DAY_MS:
        return None
    unix_ms = (today - age) * _DAY_MS + in_day_ms
    lowest, beyond = UUID(int=unix_ms << 80), UUID(int=unix_ms + 1 << 80)
    return Rewritten(lowest, beyond, stamp & ((1 << _LOW_BITS) - 1), sender)


def _letters(value: int, count: int) -> str:
    return "".join(_ALPHABET[value >> 5 * place & 31] for place in reversed(range(count)))
