"""Macros of SPF (RFC 7208 section 7) and what they are made of."""

import re
from dataclasses import dataclass
from urllib.parse import quote

from mailyard.protocol.dns_answer import Address

NAME_CHARACTERS = 253  # RFC 1035 section 2.3.4; longer ones lose labels in front (section 7.3)
_LABEL_CHARACTERS = 63
_MACRO = re.compile(r"%(?:\{([A-Za-z])([0-9]*)([rR]?)([.\-+,/_=]*)\}|([%_\-]))")
_LITERALS = {"%": "%", "_": " ", "-": "%20"}
# What an explanation may hold (section 7.1): visible characters and spaces, whole macros.
_EXPLANATION = re.compile(
    r"(?:%(?:\{[slodiphvcrtSLODIPHVCRT](?:0*[1-9][0-9]{0,2})?[rR]?[.\-+,/_=]*\}|[%_\-])"
    r"|[\x20-\x24\x26-\x7e])*"
)


@dataclass(frozen=True, slots=True)
class Sender:
    """Whom a check is about (section 4.1).

    `mail_from` is the envelope's sender as given, empty in a notice; `helo` what the client called
    itself; `receiver` is our own name, for explanations.
    """

    client: Address
    helo: str
    mail_from: str = ""
    receiver: str = "unknown"

    @property
    def identity(self) -> str:
        """The address that is checked (section 2.4): that of a notice is the client's own."""
        local, at, domain = self.mail_from.rpartition("@")
        if not self.mail_from:
            return f"postmaster@{self.helo}"
        return f"{local or 'postmaster'}@{domain}" if at else f"postmaster@{domain}"

    @property
    def domain(self) -> str:
        """That of the identity."""
        return self.identity.rpartition("@")[2]


@dataclass(frozen=True, slots=True)
class Values:
    """What the letters stand for in the record of `domain`."""

    sender: Sender
    identity: str  # with its domain in ASCII
    domain: str
    validated: str = "unknown"  # %{p}
    now_s: float = 0.0

    def of(self, letter: str) -> str:
        client = self.sender.client
        local, _, origin = self.identity.rpartition("@")
        match letter:
            case "s":
                return self.identity
            case "l":
                return local
            case "o":
                return origin
            case "d":
                return self.domain
            case "i":
                return _dotted(client)
            case "p":
                return self.validated
            case "v":
                return "in-addr" if client.version == 4 else "ip6"
            case "h":
                return self.sender.helo
            case "c":
                return str(client)
            case "r":
                return self.sender.receiver
            case _:
                return str(int(self.now_s))


def expand(text: str, values: Values) -> str:
    """`text`, which follows the grammar, with its macros replaced."""
    if "%" not in text:
        return text
    return _MACRO.sub(lambda macro: _value_of(macro, values), text)


def uses(text: str, letters: str) -> bool:
    """Whether one of `letters` (in lower case) is a macro of `text`."""
    return "%{" in text and any(
        macro[1] and macro[1].lower() in letters for macro in _MACRO.finditer(text)
    )


def target_name(text: str, values: Values) -> str:
    """The domain that a term means, without its last dot; empty when it can be none.

    Too long a name loses labels in front. A local part that is not ASCII matches nothing where it
    is used (RFC 8616 section 4).
    """
    name = expand(text, values).removesuffix(".").lower()
    while len(name) > NAME_CHARACTERS:
        _, dot, name = name.partition(".")
        if not dot:
            return ""
    return name if is_name(name) and name.isascii() else ""


def is_name(name: str) -> bool:
    """Whether `name` could stand in DNS: labels of 1 to 63 characters (section 4.3)."""
    if not 0 < len(name) <= NAME_CHARACTERS:
        return False
    return all(0 < len(label) <= _LABEL_CHARACTERS for label in name.split("."))


def explanation(text: str, values: Values) -> str:
    """What the domain says to who is refused; empty when it breaks the grammar (section 6.2)."""
    return expand(text, values) if _EXPLANATION.fullmatch(text) else ""


def _value_of(macro: re.Match[str], values: Values) -> str:
    letter, digits, reverse, delimiters, literal = macro.groups()
    if literal:
        return _LITERALS[literal]
    value = values.of(letter.lower())
    if digits or reverse or delimiters:
        parts = re.split(f"[{re.escape(delimiters or '.')}]", value)
        if reverse:
            parts.reverse()
        value = ".".join(parts[-int(digits) :] if digits else parts)
    return quote(value, safe="") if letter.isupper() else value


def _dotted(client: Address) -> str:
    """%{i}: an IPv6 address as its nibbles."""
    if client.version == 4:
        return str(client)
    return ".".join(f"{int(client):032x}")
