"""What a mail is besides its text: signed, encrypted, an invitation, a package of Outlook's.

Recognised by types and by the armour of OpenPGP, nothing is verified or opened here.
"""

from mailyard.protocol.mime.structure import Part

SMIME_SIGNED = "smime_signed"
SMIME_ENCRYPTED = "smime_encrypted"
PGP_SIGNED = "pgp_signed"
PGP_ENCRYPTED = "pgp_encrypted"
CALENDAR = "calendar"
TNEF = "tnef"
REPORT = "report"

_PKCS7 = frozenset(("application/pkcs7-mime", "application/x-pkcs7-mime"))
_CALENDARS = frozenset(("text/calendar", "application/ics", "text/x-vcalendar"))
_TNEFS = frozenset(("application/ms-tnef", "application/vnd.ms-tnef", "application/x-tnef"))
_PROTOCOLS = {  # RFC 8551 section 3.5, RFC 3156 sections 4 and 5
    "application/pkcs7-signature": SMIME_SIGNED,
    "application/x-pkcs7-signature": SMIME_SIGNED,
    "application/pgp-signature": PGP_SIGNED,
    "application/pgp-encrypted": PGP_ENCRYPTED,
    "application/pkcs7-mime": SMIME_ENCRYPTED,
    "application/x-pkcs7-mime": SMIME_ENCRYPTED,
}
_ARMOUR_CHARACTERS = 4_096  # armour stands at the top


def traits_of(root: Part, text: str | None) -> tuple[str, ...]:
    """What of the above the mail is, in order of its parts."""
    found: list[str] = []
    _collect(root, found)
    head = (text or "")[:_ARMOUR_CHARACTERS]
    if "-----BEGIN PGP MESSAGE-----" in head:
        found.append(PGP_ENCRYPTED)
    if "-----BEGIN PGP SIGNED MESSAGE-----" in head:
        found.append(PGP_SIGNED)
    return tuple(dict.fromkeys(found))


def is_calendar(part: Part) -> bool:
    return part.content_type.value in _CALENDARS


def _collect(part: Part, found: list[str]) -> None:
    kind = part.content_type.value
    parameters = part.content_type.parameters
    if kind in ("multipart/signed", "multipart/encrypted"):
        protocol = _PROTOCOLS.get(parameters.get("protocol", "").lower())
        if protocol is None:  # the protocol left out: what its parts are tells
            protocol = next(
                (
                    _PROTOCOLS[child.content_type.value]
                    for child in part.children
                    if child.content_type.value in _PROTOCOLS
                ),
                None,
            )
        if protocol is not None:
            found.append(protocol)
    elif kind in _PKCS7:
        signed = parameters.get("smime-type", "").lower() in ("signed-data", "certs-only")
        found.append(SMIME_SIGNED if signed else SMIME_ENCRYPTED)
    elif kind in _CALENDARS:
        found.append(CALENDAR)
    elif kind in _TNEFS or parameters.get("name", "").lower() == "winmail.dat":
        found.append(TNEF)
    elif kind == "multipart/report":
        found.append(REPORT)
    if not kind.startswith("message/"):
        for child in part.children:
            _collect(child, found)
