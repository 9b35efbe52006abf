"""Key records in DNS (RFC 6376 section 3.6, RFC 8463 section 4): written, named, read."""

from dataclasses import dataclass
from functools import lru_cache

from mailyard.core.errors import InvalidInput
from mailyard.protocol.dkim.key import KEY_TYPES, BadKey, PublicKey, load_public_key
from mailyard.protocol.dkim.tags import TagError, base64_value, colon_list, parse_tags

RECORD_BYTES = 4096  # an RSA key of 16,384 bits needs 2,800
TXT_STRING_BYTES = 255  # RFC 1035 section 3.3: one character-string
_RECORDS_REMEMBERED = 1024
_SERVICES = {"*", "email"}


class BadKeyRecord(InvalidInput):
    """The text of a key record is wrong; the message says what."""

    code = "invalid_key_record"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A readable key record. Without a `key` it is revoked (empty p=).

    `hashes` is None when all are allowed (h=). `strict` (t=s) wants i= to be of d= itself, without
    subdomains; `testing` (t=y) wants failures to count like no signature.
    """

    key_type: str
    key: PublicKey | None
    hashes: frozenset[str] | None
    testing: bool
    strict: bool
    refusal: str = ""  # why signatures by the key do not count


def record_name(selector: str, domain: str) -> str:
    """Where the record lies (section 3.6.2.1)."""
    return f"{selector}._domainkey.{domain}"


def record_text(key: PublicKey) -> str:
    """The record to publish for `key`, as one text."""
    key_type = next(kind for kind, algorithm in KEY_TYPES.items() if algorithm == key.algorithm)
    return f"v=DKIM1; k={key_type}; p={key.encoded()}"


def txt_strings(text: str) -> list[str]:
    """`text` as the strings of one TXT record; a resolver puts them together without spaces."""
    return [
        text[start : start + TXT_STRING_BYTES] for start in range(0, len(text), TXT_STRING_BYTES)
    ]


def parse_key_record(text: bytes) -> KeyRecord:
    """One TXT record, its strings joined. Raises BadKeyRecord, on any bytes nothing else."""
    record = _parse(text) if len(text) <= RECORD_BYTES else "key record: it is too long"
    if isinstance(record, str):
        raise BadKeyRecord(record)
    return record


@lru_cache(_RECORDS_REMEMBERED)
def _parse(text: bytes) -> KeyRecord | str:
    """The record, or what is wrong with it, remembered: few keys sign most of all mail."""
    try:
        return _read(parse_tags(text))
    except (TagError, BadKey, BadKeyRecord) as error:
        return f"key record: {error.message}"


def _read(tags: dict[str, str]) -> KeyRecord:
    if "v" in tags and (next(iter(tags)) != "v" or tags["v"] != "DKIM1"):
        raise BadKeyRecord("v= is not DKIM1, or not in front")
    key_type = tags.get("k", "rsa").lower()
    if key_type not in KEY_TYPES:
        raise BadKeyRecord("k= is neither rsa nor ed25519")
    if not _SERVICES.intersection(colon_list(tags.get("s", "*"))):
        raise BadKeyRecord("s= does not allow email")
    if "p" not in tags:
        raise BadKeyRecord("p= is missing")
    public = base64_value(tags["p"], "p")
    flags = colon_list(tags.get("t", ""))
    key = load_public_key(key_type, public) if public else None
    return KeyRecord(
        key_type=key_type,
        key=key,
        refusal=key.refusal if key is not None else "",
        hashes=frozenset(colon_list(tags["h"])) if "h" in tags else None,
        testing="y" in flags,
        strict="s" in flags,
    )
