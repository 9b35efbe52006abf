"""What is stored of a mail to send: its parts, or the whole of it as it was submitted.

Parts are JSON. A whole mail is a frame: a zero byte, the length of a JSON head in four bytes, the
head, and the mail's bytes as they came, so that they are neither encoded nor looked at again.
"""

import msgspec

from mailyard.core.errors import MailyardError
from mailyard.protocol.mime.message import Message
from mailyard.sending.request import NOT_TRACKED, Attachment, EmailContent, EmailTrack

_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(EmailContent)
_FRAME = b"\0"
_LENGTH_BYTES = 4


class WholeMail(msgspec.Struct, frozen=True):
    """A mail as it was submitted, CRLF at its end. `missing` names headers that it lacks.

    `sender` is its From, `reverse_path` the envelope's; empty: the null sender.
    """

    sender: str
    sender_address: str
    reverse_path: str
    subject: str
    smtp_utf8: bool
    missing: tuple[str, ...]
    mail: bytes
    track: EmailTrack = NOT_TRACKED

    def view(self) -> EmailContent:
        """The parts, for reading; the mail itself goes out as it is."""
        message = Message(self.mail)
        ours = frozenset(("from", "to", "cc", "reply-to", "subject", "date", "mime-version"))
        return EmailContent(
            sender=self.sender,
            to=[str_of(one.name, one.address) for one in message.to],
            cc=[str_of(one.name, one.address) for one in message.cc],
            reply_to=[str_of(one.name, one.address) for one in message.reply_to],
            subject=self.subject,
            html=message.html or "",
            text=message.text or "",
            headers={
                name: value
                for name, value in message.headers
                if name.lower() not in ours and not name.lower().startswith("content-")
            },
            attachments=[
                Attachment(
                    file.filename,
                    message.content(file.index),
                    file.content_type,
                    file.content_id or None,
                )
                for file in message.attachments
            ],
        )


class _Head(msgspec.Struct, frozen=True, omit_defaults=True):
    sender: str
    sender_address: str
    reverse_path: str
    subject: str
    smtp_utf8: bool = False
    missing: tuple[str, ...] = ()
    track: EmailTrack = NOT_TRACKED


_HEAD_DECODER = msgspec.json.Decoder(_Head)


class BrokenContent(MailyardError):
    """What is stored cannot be read as a mail."""

    code = "broken_content"


def encode_content(content: EmailContent | WholeMail) -> bytes:
    """The stored form."""
    if isinstance(content, EmailContent):
        return _ENCODER.encode(content)
    head = _ENCODER.encode(
        _Head(
            content.sender,
            content.sender_address,
            content.reverse_path,
            content.subject,
            content.smtp_utf8,
            content.missing,
            content.track,
        )
    )
    return b"".join((_FRAME, len(head).to_bytes(_LENGTH_BYTES, "big"), head, content.mail))


def decode_content(stored: bytes) -> EmailContent | WholeMail:
    """The reverse. Raises BrokenContent."""
    try:
        if not stored.startswith(_FRAME):
            return _DECODER.decode(stored)
        start = len(_FRAME) + _LENGTH_BYTES
        end = start + int.from_bytes(stored[len(_FRAME) : start], "big")
        head = _HEAD_DECODER.decode(stored[start:end])
    except msgspec.DecodeError as error:
        raise BrokenContent(str(error)) from None
    return WholeMail(
        head.sender,
        head.sender_address,
        head.reverse_path,
        head.subject,
        head.smtp_utf8,
        head.missing,
        stored[end:],
        head.track,
    )


def str_of(name: str, address: str) -> str:
    """A mailbox as people read it."""
    return f"{name} <{address}>" if name else address
