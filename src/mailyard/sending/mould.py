"""A campaign's mail, prepared once and poured for one recipient after the other.

Everything constant (From, Reply-To, the caller's headers, the parts' headers, the boundary) is
encoded when the mould is made. `compose` then costs some twenty microseconds a mail.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from mailyard.core import limits
from mailyard.core.errors import InvalidInput
from mailyard.protocol.address import Mailbox
from mailyard.sending import header
from mailyard.sending.compose import canonical, compose

_PLAIN = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
_HTML = "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: "
_SHORT = limits.HEADER_FOLD_BYTES - len("Subject: ") - 5  # fits on one line, quotes and all
_LINE_CHARACTERS = 900  # of the message id and the URL together; their lines stay within 998
_END = ">\r\n"
_ONE_CLICK = ">\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"


class Mould:
    """Composes the mail of one campaign. The bytes are the same for the same arguments.

    `seed` (the campaign's id) names the boundary. A mail needs BODY=8BITMIME when it is not ASCII
    (`not content.isascii()`), and SMTPUTF8 when the sender's or recipient's local part is not
    (`header.needs_smtp_utf8`).
    """

    __slots__ = (
        "_after", "_before", "_close", "_date", "_date_line", "_headers", "_mark", "_middle",
        "_reply_to", "_seed", "_sender",
    )  # fmt: skip

    def __init__(
        self,
        *,
        sender: Mailbox,
        reply_to: Sequence[Mailbox] = (),
        headers: Mapping[str, str] | None = None,
        seed: str,
    ) -> None:
        self._sender = sender
        self._reply_to = reply_to
        self._headers = dict(headers or {})
        self._seed = seed
        boundary = f"=_{seed.replace('-', '').replace('_', '')[:40]}"
        if not boundary.isascii() or not boundary[2:].isalnum():
            raise InvalidInput("a seed is letters and digits", field="seed")
        self._before = header.mailboxes("From", [sender], "from") + header.mailboxes(
            "Reply-To", reply_to, "reply_to"
        )
        self._after = "".join(
            header.custom(name, value, f"headers.{name}") for name, value in self._headers.items()
        ) + (
            "MIME-Version: 1.0\r\n"
            f'Content-Type: multipart/alternative;\r\n boundary="{boundary}"\r\n\r\n'
            f"--{boundary}\r\n{_PLAIN}"
        )
        self._middle = f"\r\n--{boundary}\r\n{_HTML}"
        self._date: datetime | None = None
        self._date_line = ""
        self._mark = f"--{boundary}"
        self._close = f"\r\n--{boundary}--\r\n"

    def compose(
        self,
        to_name: str,
        to_address: str,
        subject: str,
        text: str,
        html: str,
        message_id: str,
        date: datetime,
        unsubscribe_url: str = "",
    ) -> bytes:
        """The mail for one recipient. Raises InvalidInput naming the field.

        `message_id` and `unsubscribe_url` are written as they are, between angle brackets.
        """
        if text and html and _one_word(f"{message_id}{unsubscribe_url}"):
            lines = canonical(text, "text")
            page = canonical(html, "html")
            if _fits(lines) and _fits(page) and self._mark not in page and self._mark not in lines:
                if date != self._date:
                    self._date = date
                    self._date_line = f"Date: {header.date(date)}\r\n"
                return (
                    f"{self._date_line}{self._before}{_to(to_name, to_address)}"
                    f"{_subject(subject)}Message-ID: <{message_id}>\r\n"
                    f"{_unsubscribe(unsubscribe_url)}{self._after}"
                    f"{_encoding(lines)}{lines}{self._middle}{_encoding(page)}{page}{self._close}"
                ).encode()
        return self._any(
            Mailbox(to_name, to_address), subject, text, html, message_id, date, unsubscribe_url
        )

    def _any(
        self,
        receiver: Mailbox,
        subject: str,
        text: str,
        html: str,
        message_id: str,
        date: datetime,
        unsubscribe_url: str,
    ) -> bytes:
        """What does not fit the mould: long lines, one body only, an id or URL that is refused."""
        return compose(
            sender=self._sender,
            to=[receiver],
            reply_to=self._reply_to,
            subject=subject,
            text=text,
            html=html,
            headers=self._headers,
            date=date,
            message_id=message_id,
            list_unsubscribe=unsubscribe_url,
        ).content


def _one_word(text: str) -> bool:
    """Short ASCII without controls, spaces and angle brackets."""
    return (
        text.isascii()
        and text.isprintable()
        and " " not in text
        and "<" not in text
        and ">" not in text
        and len(text) <= _LINE_CHARACTERS
    )


def _subject(subject: str) -> str:
    if (
        len(subject) <= _SHORT
        and subject.isascii()
        and subject.isprintable()
        and "=?" not in subject
        and subject[:1] != " "
        and subject[-1:] != " "
    ):
        return f"Subject: {subject}\r\n"
    return header.unstructured("Subject", subject, "subject")


def _to(name: str, address: str) -> str:
    if (
        name.isascii()
        and len(name) + len(address) <= _SHORT
        and name.isprintable()
        and _one_word(address)
    ):
        if not name:
            return f"To: {address}\r\n"
        return f"To: {header.phrase(name)} <{address}>\r\n"
    return header.fold("To", header.mailbox(name, address, "to.0"), "to")


def _unsubscribe(url: str) -> str:
    if not url:
        return ""
    return f"List-Unsubscribe: <{url}{_ONE_CLICK if url.startswith('https://') else _END}"


def _fits(lines: str) -> bool:
    """Whether no line is longer than 998 octets."""
    # A character is at most four octets of UTF-8.
    longest = limits.HEADER_LINE_BYTES // (1 if lines.isascii() else 4)
    start, size = 0, len(lines)
    while size - start > longest:
        # The last line break that a line of the right length, begun here, could end with.
        found = lines.rfind("\r\n", start, start + longest + 2)
        if found < 0:
            return False
        start = found + 2
    return True


def _encoding(lines: str) -> str:
    return "7bit\r\n\r\n" if lines.isascii() else "8bit\r\n\r\n"
