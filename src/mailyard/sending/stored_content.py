"""Where the content of a mail to send lies: in its `email` row, or, when it is large, outside.

A mail with files of megabytes is not a row's business. Its content then is a blob, put before the
commit that accepts it, and the row has a zero-length mail's place for its key: a byte that neither
form of content begins with, and the key.
"""

from uuid import UUID

from mailyard.core.errors import MailyardError
from mailyard.storage.raw_mail import RawMail

_OUTSIDE = b"\1"
_KEPT = 0  # history leaves by months, not by classes; a sweep finds what its partition had named


class StoredContents:
    """Both places. Raises BlobsAway where the store is needed and away."""

    def __init__(self, raw_mail: RawMail) -> None:
        self._raw_mail = raw_mail

    async def put(self, workspace_id: UUID, email_id: UUID, content: bytes) -> bytes:
        """What the row is to hold for `content`; durable outside on return if it is a key."""
        if not self._raw_mail.goes_outside(len(content)):
            return content
        key = await self._raw_mail.put(workspace_id, _KEPT, email_id, content)
        return _OUTSIDE + key.encode()

    async def whole(self, stored: bytes) -> bytes:
        """The content of a row that holds `stored`. Raises BlobMissing, BlobDamaged too."""
        if not is_outside(stored):
            return stored
        return await self._raw_mail.read(stored[len(_OUTSIDE) :].decode())


def is_outside(stored: bytes) -> bool:
    """Whether a row holds a key and not the content."""
    return stored[:1] == _OUTSIDE


def why_not(error: MailyardError) -> str:
    """For the history of a mail whose content cannot be had any more."""
    return f"its content cannot be read: {error.message}"
