"""What can go wrong between a client and the API."""


class ClientError(Exception):
    """The root of what this client raises."""


class WrongSetting(ClientError):
    """The address or the key of the API is missing or cannot be right."""


class NoAnswer(ClientError):
    """Nobody answered, or the answer broke off. The call may have been done or not."""


class Refused(ClientError):
    """The API said no.

    `status` is that of HTTP, `code` the stable word of its problem document (RFC 9457), `field` the
    offending input. `retry_after_s` is there when trying again later may work.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        where = f" ({field})" if field else ""
        super().__init__(f"{status} {code}: {detail}{where}")
        self.status = status
        self.code = code
        self.detail = detail
        self.field = field
        self.retry_after_s = retry_after_s


class NoMail(ClientError, TimeoutError):
    """No mail that matches came in time. The message says what came instead."""
