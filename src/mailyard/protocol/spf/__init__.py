"""SPF of a received mail (RFC 7208): may this client send for that domain?"""

from mailyard.protocol.spf.check import SpfResult, SpfStatus, check_host
from mailyard.protocol.spf.macro import Sender

__all__ = ["Sender", "SpfResult", "SpfStatus", "check_host"]
