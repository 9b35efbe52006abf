"""What a refusal means: evidence in, one of a closed set of reasons out, hard or soft.

The rules are data (`rules.toml`). The same rules judge a bounce that came by mail and the answer of
a server at hand-over.
"""

from mailyard.sending.bounce.classify import (
    NOT_OF_A_PERSON,
    Judged,
    Verdict,
    classify,
    classify_reply,
)
from mailyard.sending.bounce.reason import Reason

__all__ = ["NOT_OF_A_PERSON", "Judged", "Reason", "Verdict", "classify", "classify_reply"]
