"""Sealing (RFC 8617 section 5.1): the ARC set that a forwarder puts on top of a mail."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.protocol.arc.chain import (
    INSTANCES,
    MESSAGE_FIELD,
    RESULTS_FIELD,
    SEAL_FIELD,
    Chain,
)
from mailyard.protocol.arc.verify import ChainStatus, fields_of_set, seal_digests
from mailyard.protocol.dkim.canonical import CRLF, RELAXED, relaxed_field
from mailyard.protocol.dkim.key import PrivateKey
from mailyard.protocol.dkim.mail import Mail
from mailyard.protocol.dkim.record import record_name
from mailyard.protocol.dkim.sign import plan_of
from mailyard.protocol.dkim.tags import TagError, domain_value

_DKIM_FIELD = b"dkim-signature"


class Sealer:
    """Seals as `domain` with `key`, whose record is at `selector`, as DKIM has them.

    `authserv_id` names who says what the mail's checks came to (RFC 8601 section 2.5). Raises
    InvalidInput naming the argument.
    """

    __slots__ = ("_authserv_id", "_domain", "_key", "_selector", "key_name")

    def __init__(self, domain: str, selector: str, key: PrivateKey, authserv_id: str) -> None:
        self._domain = _name(domain, "domain", 2)
        self._selector = _name(selector, "selector", 1)
        self._authserv_id = _name(authserv_id, "authserv_id", 1)
        self.key_name = record_name(self._selector, self._domain)
        self._key = key

    def seal(
        self,
        mail: Mail,
        chain: Chain,
        status: ChainStatus,
        said: str,
        now_s: float,
        names: Sequence[bytes] = (),
    ) -> bytes:
        """The fields to put in front of `mail`, CRLF included.

        `mail` is the message as it goes on: what is changed is changed before. `chain` is what
        `read_chain` found on it when it came in, and `status` what `verify_chain` said; who gets
        TEMPERROR should rather try again later, for it is sealed as a failure. `said` is the text
        of an Authentication-Results field behind the authserv-id (`spf=pass …; dkim=pass …`).
        `names` are the fields to sign, in lower case; by default those that DKIM would, and the
        DKIM signatures. Empty when nothing may be added any more: the last sealer saw the chain
        fail, or it is INSTANCES long. Raises InvalidInput when the mail has no From.
        """
        if chain.ended or chain.instances >= INSTANCES:
            return b""
        instance = chain.instances + 1
        verdict = status if status in (ChainStatus.NONE, ChainStatus.PASS) else ChainStatus.FAIL
        if (verdict is ChainStatus.NONE) != (instance == 1):
            verdict = ChainStatus.FAIL
        results = b" i=%d; %b; %b" % (instance, self._authserv_id.encode(), _one_text(said))
        message = self._message(mail, instance, names or _signed_names(mail), int(now_s))
        seal = self._seal(chain, mail, instance, verdict, (results, message), int(now_s))
        return b"".join(
            b"%b:%b\r\n" % field
            for field in (
                (b"ARC-Seal", seal),
                (b"ARC-Message-Signature", message),
                (b"ARC-Authentication-Results", results),
            )
        )

    def _message(self, mail: Mail, instance: int, names: Sequence[bytes], now_s: int) -> bytes:
        """The value of the ARC-Message-Signature."""
        before = f" a={self._key.algorithm};\r\n b=".encode()
        behind = b";\r\n bh=%b; c=relaxed/relaxed;\r\n d=%b; h=%b;\r\n i=%d; s=%b; t=%d" % (
            b64encode(mail.body_hash(RELAXED)),
            self._domain.encode(),
            _folded_names(names),
            instance,
            self._selector.encode(),
            now_s,
        )
        digest = sha256(mail.canonical_fields(RELAXED, mail.chosen(names)))
        digest.update(relaxed_field(MESSAGE_FIELD, before + behind))
        return before + self._signed(digest.digest()) + behind

    def _seal(
        self,
        chain: Chain,
        mail: Mail,
        instance: int,
        verdict: ChainStatus,
        own: tuple[bytes, bytes],
        now_s: int,
    ) -> bytes:
        """The value of the ARC-Seal; of a chain that fails it covers its own set alone (5.1.2)."""
        before = f" a={self._key.algorithm};\r\n b=".encode()
        behind = (
            f"; cv={verdict};\r\n d={self._domain}; i={instance}; s={self._selector}; t={now_s}"
        ).encode()
        covered = chain.sets if verdict is ChainStatus.PASS else ()
        sets = [fields_of_set(mail, one) for one in covered]
        results, message = own
        sets.append(
            ((RESULTS_FIELD, results), (MESSAGE_FIELD, message), (SEAL_FIELD, before + behind))
        )
        return before + self._signed(seal_digests(sets)[-1]) + behind

    def _signed(self, digest: bytes) -> bytes:
        """b= in one piece: a fold in it would be a space in what the next seal covers."""
        return b64encode(self._key.sign(digest))


def _signed_names(mail: Mail) -> list[bytes]:
    """What DKIM would sign, and the DKIM signatures (section 4.1.2)."""
    return [*plan_of(mail).names, *[_DKIM_FIELD] * len(mail.places.get(_DKIM_FIELD, ()))]


def _folded_names(names: Sequence[bytes]) -> bytes:
    lines = [names[0]]
    for name in names[1:]:
        if len(lines[-1]) + len(name) + 2 > limits.HEADER_FOLD_BYTES:
            lines[-1] += b":"
            lines.append(name)
        else:
            lines[-1] += b":" + name
    return b"\r\n ".join(lines)


def _one_text(said: str) -> bytes:
    """`said` without line breaks but folds, and without what could not stand in a header."""
    lines = [line.strip(" \t") for line in said.splitlines()]
    text = CRLF.decode() + " " if len(lines) > 1 else " "
    joined = text.join(line for line in lines if line)
    return "".join(one for one in joined if one.isprintable() or one in "\r\n\t").encode()


def _name(value: str, argument: str, labels: int) -> str:
    try:
        return domain_value(value, argument, labels)
    except TagError:
        raise InvalidInput(f"{value[:80]!r} is not a domain name", field=argument) from None
