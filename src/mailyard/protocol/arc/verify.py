"""Validation of a chain (RFC 8617 section 5.2) over DNS answers that are handed in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from hashlib import sha256

from mailyard.protocol.arc.chain import ArcSet, Chain
from mailyard.protocol.dkim.canonical import CRLF, relaxed_field
from mailyard.protocol.dkim.key import PublicKey
from mailyard.protocol.dkim.mail import Mail
from mailyard.protocol.dkim.signature import Signature, Status, without_data
from mailyard.protocol.dkim.verify import Result, by_keys, verify

# Name to its TXT records; none when there are none, None when that could not be found out now.
Keys = Mapping[str, Sequence[bytes] | None]
NamedField = tuple[bytes, bytes]  # name in lower case, value as it stands in the mail


class ChainStatus(StrEnum):
    """What became of a chain (RFC 8617 section 4.4)."""

    NONE = "none"
    PASS = "pass"
    FAIL = "fail"
    TEMPERROR = "temperror"  # a key could not be fetched now; in a seal that counts as fail


@dataclass(frozen=True, slots=True)
class ChainResult:
    """`reason` says why a chain does not pass, in words that are safe in a header field.

    Of one that passes: `sealers` are the domains that sealed it, the first hop first, and
    `oldest_pass` is the first instance since which nobody changed what is signed; 0 means that
    nobody ever did (section 5.2, step 5), and it takes keys that `Chain.key_names` leaves out.
    """

    status: ChainStatus
    reason: str = ""
    sealers: tuple[str, ...] = ()
    oldest_pass: int | None = None


def verify_chain(mail: Mail, chain: Chain, keys: Keys, now_s: float) -> ChainResult:
    """`chain` of `mail` judged at `now_s`, in seconds since 1970. Never raises."""
    if chain.defect:
        return ChainResult(ChainStatus.FAIL, chain.defect)
    if not chain.sets:
        return ChainResult(ChainStatus.NONE)
    newest = chain.sets[-1]
    result = verify(mail, newest.message, keys.get(newest.message.key_name, ()), now_s)
    if result.status is not Status.PASS:
        return _broken(f"ARC-Message-Signature i={newest.instance}", result)
    digests = seal_digests(fields_of_set(mail, one) for one in chain.sets)
    for one in reversed(chain.sets):
        check = partial(_seal_by, one.seal, digests[one.instance - 1])
        result = by_keys(one.seal, keys.get(one.seal.key_name, ()), now_s, check)
        if result.status is not Status.PASS:
            return _broken(f"ARC-Seal i={one.instance}", result)
    return ChainResult(
        ChainStatus.PASS,
        sealers=tuple(one.seal.domain for one in chain.sets),
        oldest_pass=_oldest_pass(mail, chain, keys, now_s),
    )


def seal_digests(sets: Iterable[Sequence[NamedField]]) -> list[bytes]:
    """What each seal signs: SHA-256 of all sets up to its own (section 5.1.1), in linear time.

    A set is its ARC-Authentication-Results, its ARC-Message-Signature and its ARC-Seal; what the
    seal has as b= does not count in its own.
    """
    digests = []
    running = sha256()
    for results, message, (name, value) in sets:
        running.update(relaxed_field(*results) + CRLF + relaxed_field(*message) + CRLF)
        own = running.copy()
        own.update(relaxed_field(name, without_data(value)))
        digests.append(own.digest())
        running.update(relaxed_field(name, value) + CRLF)
    return digests


def fields_of_set(mail: Mail, one: ArcSet) -> tuple[NamedField, ...]:
    """The three fields of a set as `seal_digests` takes them."""
    places = (one.results_at, one.message.index, one.seal.index)
    return tuple(mail.fields[at][:2] for at in places)


def _seal_by(seal: Signature, digest: bytes, key: PublicKey) -> Result:
    if not key.verifies(seal.data, digest):
        return Result(Status.FAIL, "the seal is not of these sets and this key")
    return Result(Status.PASS, "")


def _oldest_pass(mail: Mail, chain: Chain, keys: Keys, now_s: float) -> int | None:
    """Section 5.2, step 5, as far as keys are at hand; None when one is missing, or a set signs
    only a part of the body (l=)."""
    for one in reversed(chain.sets[:-1]):
        if one.message.key_name and one.message.key_name not in keys:
            return None
        if one.message.length is not None:  # each length costs a hash of the whole body
            return None
        result = verify(mail, one.message, keys.get(one.message.key_name, ()), now_s)
        if result.status is not Status.PASS:
            return one.instance + 1
    return 0


def _broken(what: str, result: Result) -> ChainResult:
    temporary = result.status is Status.TEMPERROR
    status = ChainStatus.TEMPERROR if temporary else ChainStatus.FAIL
    return ChainResult(status, f"{what}: {result.reason}")
