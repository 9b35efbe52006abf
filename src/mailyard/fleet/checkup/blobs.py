"""The check of a blob store: can one write there, read it back and delete it?"""

import asyncio

from mailyard.core.errors import MailyardError
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.storage.blob import BlobStore, try_out

_BLOBS_S = 20.0


async def check_blobs(name: str, setting: str, store: BlobStore) -> Finding:
    """A store takes, gives back and deletes a blob."""
    try:
        async with asyncio.timeout(_BLOBS_S):
            await try_out(store)
    except (MailyardError, TimeoutError) as error:
        told = error.message if isinstance(error, MailyardError) else "it does not answer"
        return Finding(
            name,
            Grade.BAD,
            told,
            f"{setting} must name a store that is there and lets us in; large mail is deferred "
            "until it does",
        )
    return Finding(name, Grade.GOOD, "takes, gives back and deletes a blob")
