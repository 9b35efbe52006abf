"""The client of Mailyard's API for test suites, scripts and agents: sync and async.

    from mailyard.client import Mailyard

    with Mailyard() as mailyard:                      # MAILYARD_URL, MAILYARD_API_KEY
        inbox = mailyard.create_inbox(ttl_s=3600)
        sign_up(inbox.address)
        print(inbox.wait_for(subject="code").code)

It stands on the standard library alone and imports nothing else of Mailyard: `pip install
--no-deps mailyard` is enough for it, and `import mailyard.client` costs milliseconds. asyncio and
ssl are loaded when they are used.
"""

from typing import TYPE_CHECKING, Any

from mailyard.client.errors import ClientError, NoAnswer, NoMail, Refused, WrongSetting
from mailyard.client.mail import File, Mail, MailSummary

if TYPE_CHECKING:
    from mailyard.client.asynchronous import AsyncInbox, AsyncMailyard
    from mailyard.client.synchronous import Inbox, Mailyard

__all__ = [
    "AsyncInbox",
    "AsyncMailyard",
    "ClientError",
    "File",
    "Inbox",
    "Mail",
    "MailSummary",
    "Mailyard",
    "NoAnswer",
    "NoMail",
    "Refused",
    "WrongSetting",
]

_WHERE = {
    "Mailyard": "synchronous",
    "Inbox": "synchronous",
    "AsyncMailyard": "asynchronous",
    "AsyncInbox": "asynchronous",
}


def __getattr__(name: str) -> Any:
    """Half of it is loaded when it is asked for: who writes sync tests pays for no event loop."""
    from importlib import import_module

    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
