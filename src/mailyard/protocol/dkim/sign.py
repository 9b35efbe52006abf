"""Signing (RFC 6376 section 5): the DKIM-Signature fields to put in front of a mail.

A `Signer` is made once for a key and signs any number of mails. Its field is laid out so that all
but t=, bh= and b= stands in front and is kept for every mail that has the same fields in the same
order. Mails that are alike are signed by a `Series`, which does not read again what a mail has in
common with the one before.

What is signed is the message as its reader sees it: the fields of RFC 6376 section 5.4.1, those of
RFC 8058 and RFC 9477, and Feedback-ID. Fields that stand for identity or content are signed once
more than they are there, so that nobody can add another one in front of ours (section 8.15).
"""

from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from mailyard.core import limits
from mailyard.core.errors import InvalidInput, TooLarge
from mailyard.protocol.dkim.canonical import CRLF, RELAXED, SIMPLE, canonical_body, relaxed_field
from mailyard.protocol.dkim.key import PrivateKey
from mailyard.protocol.dkim.mail import (
    HEADER_BYTES,
    Mail,
    canonical_field,
    field_of,
    lines_of,
    places_of,
    split,
)
from mailyard.protocol.dkim.record import record_name
from mailyard.protocol.dkim.signature import FIELD
from mailyard.protocol.dkim.tags import TagError, domain_value

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

# Signed as often as there, and once more even when absent: no relay has a reason to add these.
_SEALED = (b"from", b"reply-to", b"subject", b"to", b"cc")
# Signed once more when there. Absent, a relay may add them (RFC 6409 section 8).
_SEALED_IF_THERE = (
    b"sender", b"date", b"message-id", b"mime-version", b"content-type",
    b"content-transfer-encoding", b"list-unsubscribe", b"list-unsubscribe-post", b"feedback-id",
)  # fmt: skip
_SIGNED = (
    b"in-reply-to", b"references", b"content-id", b"content-description", b"content-disposition",
    b"resent-date", b"resent-from", b"resent-sender", b"resent-to", b"resent-cc",
    b"resent-message-id", b"list-id", b"list-help", b"list-subscribe", b"list-post",
    b"list-owner", b"list-archive", b"auto-submitted", b"precedence", b"cfbl-address",
    b"cfbl-feedback-id",
)  # fmt: skip
_WORD_FOR = {name: name for name in (*_SEALED, *_SEALED_IF_THERE, *_SIGNED)}
# What providers write anew (Amazon SES Developer Guide, "Manual DKIM signing"): left out by who
# spares it.
_REWRITTEN = (b"message-id", b"date", b"resent-message-id", b"resent-date")
_SPARING_WORD_FOR = {name: name for name in _WORD_FOR if name not in _REWRITTEN}
_REMEMBERED = 256  # shapes of mails, each with its h=
_REMEMBERED_NAMES = 64  # a mail with more is not one of many
_FIELD_NAME = b"DKIM-Signature:"
_VALUE_AT = len(_FIELD_NAME)
_DATA_CHARACTERS = 72  # of b= in a line


class Plan(NamedTuple):
    """What is signed of all mails of one shape."""

    names: tuple[bytes, ...]  # h=
    places: tuple[int, ...]  # of the fields that h= chooses, in its order


_NO_PLAN = Plan((), ())


class Signer:
    """Signs as `domain` with `key`, whose record is at `selector`.

    `identity` is i=, an address or `@domain` at or below `domain`; `lifetime_s` gives x=. `kinds`
    are the canonical forms of header and body. `sparing`: Message-ID and Date are not signed, for
    they will be written anew on the way. Raises InvalidInput naming the argument.
    """

    __slots__ = (
        "_key",
        "_lifetime_s",
        "_tags",
        "body_kind",
        "header_kind",
        "key_name",
        "sparing",
    )

    def __init__(
        self,
        domain: str,
        selector: str,
        key: PrivateKey,
        *,
        kinds: tuple[str, str] = (RELAXED, SIMPLE),
        identity: str = "",
        lifetime_s: int | None = None,
        sparing: bool = False,
    ) -> None:
        domain = _name(domain, "domain", 2)
        selector = _name(selector, "selector", 1)
        self.key_name = _name(record_name(selector, domain), "selector", 2)
        if not set(kinds) <= {SIMPLE, RELAXED}:
            raise InvalidInput("canonical forms are simple and relaxed", field="kinds")
        if lifetime_s is not None and lifetime_s <= 0:
            raise InvalidInput("must be above 0", field="lifetime_s")
        self._key = key
        self.header_kind, self.body_kind = kinds
        self._lifetime_s = lifetime_s
        self.sparing = sparing
        self._tags = (
            b"v=1;",
            f"a={key.algorithm};".encode(),
            f"c={'/'.join(kinds)};".encode(),
            f"d={domain};".encode(),
            f"s={selector};".encode(),
            *([f"i={_identity(identity, domain)};".encode()] if identity else ()),
        )

    def sign(self, content: bytes, now_s: float) -> bytes:
        """The field to put in front of `content`, CRLF included. See `sign_all`."""
        return sign_all((self,), content, now_s)

    def begin(self, names: tuple[bytes, ...]) -> "Beginning":
        """The field that signs `names`, as far as it is the same for all mails."""
        lay = _known_layout if len(names) <= _REMEMBERED_NAMES else _layout
        return lay(self._tags, names)

    def prepare(
        self, begun: "Beginning", fields: "Hash", body_hash: bytes, now_s: int
    ) -> "Prepared":
        """The field up to its signature. `fields`: the hash of the signed fields, canonical;
        `body_hash`: that of the body, in Base64."""
        times = b"t=%d;" % now_s
        if self._lifetime_s is not None:
            times += b" x=%d;" % (now_s + self._lifetime_s)
        own = b"%b\r\n %b\r\n bh=%b;\r\n b=" % (begun.written, times, body_hash)
        digest = fields.copy()
        if self.header_kind == RELAXED:
            digest.update(b"%b %b bh=%b; b=" % (begun.relaxed, times, body_hash))
        else:
            digest.update(own)
        return Prepared(own, digest.digest(), self._key)


class Beginning(NamedTuple):
    """A field up to h=, as it is written and in its relaxed form."""

    written: bytes
    relaxed: bytes


class Prepared(NamedTuple):
    """A field that lacks its signature."""

    own: bytes
    digest: bytes
    key: PrivateKey

    def signed(self) -> bytes:
        """The whole field, CRLF included."""
        data = b2a_base64(self.key.sign(self.digest), newline=False)
        lines = [data[at : at + _DATA_CHARACTERS] for at in range(0, len(data), _DATA_CHARACTERS)]
        return self.own + b"\r\n ".join(lines) + CRLF


def sign_all(signers: Iterable[Signer], content: bytes, now_s: float) -> bytes:
    """The fields of all `signers`, in their order, to put in front of `content`.

    `content` is a whole mail with CRLF line ends, not dot-stuffed; what the signatures have in
    common is computed once. `now_s` in seconds since 1970. What one of them spares none signs.
    Raises InvalidInput when there is no From (RFC 6376 section 5.4), TooLarge when the header is
    beyond HEADER_BYTES.
    """
    return b"".join([field.signed() for field in Series(signers).prepare(content, now_s)])


class Series:
    """Signs mails that are alike, as those of a campaign are, by `signers`.

    Most of their fields are the same to the octet. Each field is compared with the one that the
    mail before had at its place, which costs a tenth of reading it.
    """

    __slots__ = ("_begun", "_body_kinds", "_lines", "_names", "_plan", "_raws", "_signers",
                 "_sparing")  # fmt: skip

    def __init__(self, signers: Iterable[Signer]) -> None:
        self._signers = tuple(signers)
        self._sparing = any(signer.sparing for signer in self._signers)
        self._body_kinds = dict.fromkeys(signer.body_kind for signer in self._signers)
        self._raws: list[bytes] = []  # of the mail before, as they came
        self._names: list[bytes] = []
        self._lines: dict[str, list[bytes]] = {  # canonical, by kind
            signer.header_kind: [] for signer in self._signers
        }
        self._plan = _NO_PLAN
        self._begun: list[Beginning] = []

    def prepare(self, content: bytes, now_s: float) -> list[Prepared]:
        """As `sign_all`, before the keys are used. Who has many mails prepares some and then signs
        them: a key leaves little in the processor's caches of what comes between."""
        head, body = split(content)
        if len(head) > HEADER_BYTES:
            raise TooLarge(f"the header of the mail is larger than {HEADER_BYTES} bytes")
        self._read(head)
        places = self._plan.places
        fields = {
            kind: sha256(CRLF.join([*[lines[at] for at in places], b""]))
            for kind, lines in self._lines.items()
        }
        hashes = {
            kind: b2a_base64(sha256(canonical_body(kind, body)).digest(), newline=False)
            for kind in self._body_kinds
        }
        at_s = int(now_s)
        return [
            signer.prepare(begun, fields[signer.header_kind], hashes[signer.body_kind], at_s)
            for signer, begun in zip(self._signers, self._begun, strict=True)
        ]

    def _read(self, head: bytes) -> None:
        """Know the fields of `head`, their canonical forms, and what is signed of them."""
        raws, before, names = lines_of(head), self._raws, self._names
        self._raws = []  # nothing is known while it is half read
        renamed = len(raws) != len(before)
        if renamed:
            before = [b""] * len(raws)
            names[:] = before
            for lines in self._lines.values():
                lines[:] = before
        for at, (raw, known) in enumerate(zip(raws, before, strict=True)):
            if raw == known:
                continue
            field = field_of(raw)
            for kind, lines in self._lines.items():
                lines[at] = canonical_field(kind, field)
            if field[0] != names[at]:
                names[at] = field[0]
                renamed = True
        if renamed:
            self._plan = _plan_for(names, sparing=self._sparing)
            self._begun = [signer.begin(self._plan.names) for signer in self._signers]
        self._raws = raws


def plan_of(mail: Mail) -> Plan:
    """What to sign of `mail`. Raises InvalidInput when there is no From."""
    return _plan_for([name for name, _, _ in mail.fields], sparing=False)


def _plan_for(names: Sequence[bytes], *, sparing: bool) -> Plan:
    word_for = _SPARING_WORD_FOR.get if sparing else _WORD_FOR.get
    shape = tuple([word_for(name, b"") for name in names])
    return (_known_plan if len(shape) <= _REMEMBERED_NAMES else _plan)(shape)


def _plan(shape: tuple[bytes, ...]) -> Plan:
    """What to sign of mails whose fields have the names `shape`, from top to bottom.

    Names that are never signed are empty there: whatever a mail has of them, its shape is small.
    """
    places = places_of(shape)
    if b"from" not in places:
        raise InvalidInput("a mail without From cannot be signed with DKIM", field="from")
    names: list[bytes] = []
    for name in _SEALED:
        names += [name] * (len(places.get(name, ())) + 1)
    for name in _SEALED_IF_THERE:
        if name in places:
            names += [name] * (len(places[name]) + 1)
    for name in _SIGNED:
        names += [name] * len(places.get(name, ()))
    in_order = dict.fromkeys(names)
    return Plan(
        tuple(names), tuple(at for name in in_order for at in reversed(places.get(name, [])))
    )


_known_plan = lru_cache(_REMEMBERED)(_plan)


def _layout(tags: tuple[bytes, ...], names: Sequence[bytes]) -> Beginning:
    """The field up to h=, folded within HEADER_FOLD_BYTES where words allow it."""
    listed = [name + b":" for name in names[:-1]] + [names[-1] + b";"]
    lines = [_FIELD_NAME]
    for part in tags:
        _append(lines, b" " + part)
    _append(lines, b" h=" + listed[0])
    for part in listed[1:]:
        _append(lines, part)
    written = b"\r\n ".join(lines)
    return Beginning(written, relaxed_field(FIELD, written[_VALUE_AT:]))


_known_layout = lru_cache(_REMEMBERED)(_layout)


def _append(lines: list[bytes], part: bytes) -> None:
    """`part` onto the last line, or onto a new one, which begins with a space of its own."""
    if len(lines[-1]) + 1 + len(part) <= limits.HEADER_FOLD_BYTES:
        lines[-1] += part
    else:
        lines.append(part.lstrip())


def _name(value: str, argument: str, labels: int) -> str:
    try:
        return domain_value(value, argument, labels)
    except TagError:
        raise InvalidInput(f"{value[:80]!r} is not a domain name", field=argument) from None


def _identity(identity: str, domain: str) -> str:
    """`identity` as the i= of a signature (section 3.5), in dkim-quoted-printable."""
    local, at, of = identity.rpartition("@")
    of = _name(of, "identity", 2)
    if not at or (of != domain and not of.endswith(f".{domain}")):
        raise InvalidInput(f"must end in @{domain} or a subdomain of it", field="identity")
    octets = local.encode()
    if len(octets) > limits.SMTP_LOCAL_PART_BYTES:
        raise InvalidInput("the part before @ is too long", field="identity")
    kept = "".join(_quoted(octet) for octet in octets)
    return f"{kept}@{of}"


def _quoted(octet: int) -> str:
    return chr(octet) if 0x21 <= octet <= 0x7E and octet not in b";=" else f"={octet:02X}"
