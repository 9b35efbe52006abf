"""One error root. An error knows whether trying again can help and what the peer is told.

`code` is stable and part of the API; `status` is the HTTP status of a problem document
(RFC 9457); `field` names the offending input, as a dotted path.
"""


class MailyardError(Exception):
    """The root of every error that Mailyard raises on purpose."""

    code = "internal_error"
    status = 500
    retryable = False

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidInput(MailyardError):
    """The caller sent something that can never work as it is."""

    code = "invalid_input"
    status = 422


class NotAuthenticated(MailyardError):
    code = "not_authenticated"
    status = 401


class QuotaExceeded(MailyardError):
    """The workspace's plan allows no more of this. Trying again helps when the amount is a day's,
    and it is the next day."""

    code = "quota_exceeded"
    status = 402


class NotAllowed(MailyardError):
    code = "not_allowed"
    status = 403


class NotFound(MailyardError):
    """Absent, or another workspace's: the two look the same from outside."""

    code = "not_found"
    status = 404


class Conflict(MailyardError):
    """The state of the thing forbids this: a cancelled campaign cannot start."""

    code = "conflict"
    status = 409


class IdempotencyMismatch(Conflict):
    """The idempotency key was used before with another body."""

    code = "idempotency_key_reused"
    status = 409


class TooLarge(MailyardError):
    code = "too_large"
    status = 413


class RateLimited(MailyardError):
    """Come back in `retry_after_s` seconds."""

    code = "rate_limited"
    status = 429
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after_s = retry_after_s


class Unavailable(MailyardError):
    """A part that is needed is away or full now; the same call may work later."""

    code = "unavailable"
    status = 503
    retryable = True


class OutOfReach(Unavailable):
    """A part outside is away, and that says nothing of who asked: a job that needs it waits
    `retry_after_s` seconds and loses no attempt."""

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StaleLease(MailyardError):
    """The fencing token is not the current one: the job was given to somebody else."""

    code = "stale_lease"
    status = 409


class ConfigurationError(MailyardError):
    """A setting or the machine is not as it must be. The message says what to do."""

    code = "configuration"
