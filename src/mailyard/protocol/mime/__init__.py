"""MIME in: received mail of any quality, read within bounds (RFC 5322, 2045-2047, 2231).

`parse` gives the whole mail, `parse_summary` the one line that an inbox shows, `plain_text` its
words for search and analysis. None of them raises.
"""

from mailyard.protocol.mime.message import Attachment, Message, parse
from mailyard.protocol.mime.summary import Summary, parse_summary
from mailyard.protocol.mime.text import Text, plain_text

__all__ = ["Attachment", "Message", "Summary", "Text", "parse", "parse_summary", "plain_text"]
