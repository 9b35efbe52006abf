"""What may be told of an error: in a log line, in the row of a job that failed.

What an error says may be a mail's: a parser quotes what it could not read, PostgreSQL the row that
it refused. So of an error that nobody expected it is told what it is and where it came up; its
words only where they are of our own making (MailyardError), the system's (OSError) or PostgreSQL's
names of things. Nothing here grows with the mail. At the log level `debug` a log has all words.
"""

import traceback
from types import TracebackType

from mailyard.core.errors import MailyardError

WORDS_MAX = 300
REASON_MAX = 500
FRAMES_MAX = 30  # of one error, the innermost
_CHAIN_MAX = 8

Info = tuple[type[BaseException], BaseException, TracebackType | None]


def reason_of(error: BaseException) -> str:
    """One line of at most REASON_MAX characters: `KeyError in mailyard.receiving.ingest:193`."""
    words = _words(error)
    kind = type(error).__name__
    if words:
        return f"{kind}: {words}"[:REASON_MAX]
    place = _place(error.__traceback__)
    return f"{kind} in {place}"[:REASON_MAX] if place else kind[:REASON_MAX]


def trace_of(exc_info: Info) -> str:
    """The frames of an error and of what led to it, each as `reason_of` has it; for the log."""
    lines: list[str] = []
    one: BaseException | None = exc_info[1]
    for _ in range(_CHAIN_MAX):
        if one is None:
            break
        lines.append(reason_of(one))
        frames = traceback.extract_tb(one.__traceback__)[-FRAMES_MAX:]
        lines += [f"  {frame.filename}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
        if isinstance(one, BaseExceptionGroup) and one.exceptions:
            one = one.exceptions[0]
        else:
            one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n".join(lines)


def _words(error: BaseException) -> str:
    if isinstance(error, MailyardError):
        return " ".join(error.message.split())[:WORDS_MAX]
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str):  # PostgreSQL's; what it says in words has the row's values
        names = ("table_name", "column_name", "constraint_name")
        named = [str(found) for name in names if (found := getattr(error, name, None))]
        return " ".join([sqlstate, *named])[:WORDS_MAX]
    if isinstance(error, OSError) and error.errno is not None:
        return f"[{error.errno}] {error.strerror}"[:WORDS_MAX]
    return ""


def _place(at: TracebackType | None) -> str:
    """The innermost of our own frames, else the innermost of all."""
    place = ours = ""
    while at is not None:
        place = f"{at.tb_frame.f_globals.get('__name__', '?')}:{at.tb_lineno}"
        if place.startswith("mailyard."):
            ours = place
        at = at.tb_next
    return ours or place
