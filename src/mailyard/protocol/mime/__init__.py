"""MIME in: received mail of any quality, read within bounds (RFC 5322, 2045-2047, 2231).

`parse` gives the whole mail, `parse_summary` the one line that an inbox shows. Both never raise.
"""

from mailyard.protocol.mime.message import Attachment, Message, parse
from mailyard.protocol.mime.summary import Summary, parse_summary

__all__ = ["Attachment", "Message", "Summary", "parse", "parse_summary"]
