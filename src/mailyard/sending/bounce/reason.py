"""Why a mail was not taken: a closed set, each reason hard or soft."""

from enum import StrEnum


class Reason(StrEnum):
    """Hard reasons are about the address and last; all others may be over tomorrow."""

    # The address. Hard.
    USER_UNKNOWN = "user_unknown"
    HOST_UNKNOWN = "host_unknown"
    MOVED = "moved"  # and no forwarding
    NOT_ACCEPTING = "not_accepting"  # the domain takes no mail at all (RFC 7505); soft on a 4xx

    # The mailbox.
    MAILBOX_FULL = "mailbox_full"
    MAILBOX_DISABLED = "mailbox_disabled"  # suspended, inactive, locked: the address exists
    FILTERED = "filtered"  # refused for this recipient after its content was seen, or by his rules
    ON_HOLD = "on_hold"  # his server does not say more than that

    # The way there.
    EXPIRED = "expired"  # tried long enough
    NETWORK = "network"  # DNS, connection, loop
    TOO_MANY_CONNECTIONS = "too_many_connections"
    RATE_LIMITED = "rate_limited"
    GREYLISTED = "greylisted"
    SYSTEM_ERROR = "system_error"
    SYSTEM_FULL = "system_full"
    MAILER_ERROR = "mailer_error"  # the program behind the server failed
    PROTOCOL = "protocol"

    # Who sends.
    BLOCKED = "blocked"  # the sending address or network is on a list
    REPUTATION = "reputation"
    REVERSE_DNS = "reverse_dns"
    AUTH_FAILURE = "auth_failure"  # SPF, DKIM, DMARC
    SENDER_REJECTED = "sender_rejected"
    RELAYING_DENIED = "relaying_denied"
    TLS_REQUIRED = "tls_required"
    SECURITY = "security"  # not authenticated, not authorised
    POLICY = "policy"

    # The mail itself.
    SPAM = "spam"
    VIRUS = "virus"
    CONTENT = "content"
    NOT_COMPLIANT = "not_compliant"  # breaks RFC 5322
    TOO_BIG = "too_big"

    # Not refused by a server.
    COMPLAINT = "complaint"
    UNDEFINED = "undefined"


ALWAYS_HARD = frozenset((Reason.USER_UNKNOWN, Reason.HOST_UNKNOWN, Reason.MOVED))


def is_hard(reason: Reason, *, temporary: bool) -> bool:
    """Whether `reason` is about the address and lasts; `temporary`: the answer was a 4xx."""
    return reason in ALWAYS_HARD or (reason is Reason.NOT_ACCEPTING and not temporary)
