"""The kinds of cached values, and for how long each layer may keep one: data, not code.

A value dies of three things: a change that names one of its tags, its end (an inbox's, said by
whoever made the value), and time. Of time every layer has its own: in process 5 s, shared 30 s, in
the result table 5 min, unless a kind says otherwise here. `None` means as long as the value lives.

A layer that costs more than making the value again is not used: an inbox is one look at a primary
key, which a shared layer in the same database cannot beat.
"""

from dataclasses import dataclass

PROCESS_S = 5.0
SHARED_S = 30.0
RESULT_S = 300.0
UNUSED = 0.0


@dataclass(frozen=True, slots=True)
class Kind:
    """What may be kept where, in seconds.

    `life_s`: no layer keeps it longer. `stale_s`: for so long after that it is still given while a
    new one is made behind it. `strict`: a read hears of every change that was committed before it
    began, in whatever process, which costs it a share of one small query; else of those older than
    a quarter of a second (`change_log.LOOK_EVERY_S`): whoever makes such a change is answered when
    everybody has heard of it. `entry_bytes`: what one is taken for in the process's memory when
    nobody weighs it.
    """

    name: str
    life_s: float | None = None
    stale_s: float = 0.0
    process_s: float | None = PROCESS_S
    shared_s: float | None = UNUSED
    result_s: float | None = UNUSED
    strict: bool = True
    entry_bytes: int = 500


# Until the inbox ends; extending, relabelling and deleting it name it.
INBOX = Kind("inbox", process_s=None)
# A page of a mailbox: until mail arrives in it or something in it changes.
LIST = Kind("list", process_s=None, entry_bytes=50_000)
# Who is there: people's sessions, members and the workspace itself.
USER = Kind("user", life_s=300.0, process_s=None)
# Who a key is: asked by every request, so it costs none a query; see access/key.py for the promise.
KEY = Kind("key", life_s=300.0, process_s=None, strict=False)
# What a workspace may use.
PLAN = Kind("plan", life_s=300.0, stale_s=300.0, process_s=60.0, shared_s=SHARED_S, strict=False)
# What never changes under its key: a published version of a template (sending/ready.py).
STATIC = Kind(
    "static",
    life_s=3_600.0,
    stale_s=3_600.0,
    process_s=None,
    shared_s=None,
    strict=False,
    entry_bytes=10_000,
)
# What a model said, under the hash of what it was asked: true for ever (analysis/results.py).
ANALYSIS = Kind("analysis", process_s=UNUSED, result_s=None, strict=False, entry_bytes=4_000)
# What is summed over many rows: the charts of reports, until another report comes.
REPORT = Kind("report", life_s=RESULT_S, result_s=RESULT_S)

KINDS = (INBOX, LIST, USER, KEY, PLAN, STATIC, ANALYSIS, REPORT)
