"""One log stream: every process writes lines to its standard error, the supervisor joins them.

`text` is for people, `json` for machines; both carry the time in UTC, the level, the role and
the event with its fields. Modules log with `structlog.get_logger(__name__)`.
"""

import logging
import sys

import structlog
from structlog.typing import EventDict

from mailyard.observe import report
from mailyard.observe.reason import trace_of

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


_least = logging.INFO


def set_level(level: str) -> None:
    """From now on only what is at `level` or above. A level of debug needs a start with it."""
    global _least
    _least = _LEVELS[level]


def _loud_enough(_logger: object, method: str, event: EventDict) -> EventDict:
    if _LEVELS.get(method, logging.ERROR) < _least:
        raise structlog.DropEvent
    return event


def _reported(_logger: object, method: str, event: EventDict) -> EventDict:
    """What is logged with an error is reported, if somebody takes reports (`observe/report.py`)."""
    told = event.get("exc_info")
    if told and _LEVELS.get(method, logging.ERROR) >= logging.WARNING:
        error = sys.exc_info()[1] if told is True else told[1] if isinstance(told, tuple) else told
        if isinstance(error, BaseException):
            report.note(error, str(event.get("kind") or event.get("duty") or ""))
    return event


def set_up(*, level: str, form: str, role: str) -> None:
    """Configure logging of this process: `level` and `form` as the settings name them."""
    last: structlog.typing.Processor
    if form == "json":
        last = structlog.processors.JSONRenderer()
    else:
        last = structlog.processors.LogfmtRenderer(
            key_order=["timestamp", "level", "role", "event"], bool_as_flag=False
        )
    set_level(level)
    structlog.configure(
        processors=[
            _loud_enough,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _reported,
            # What an error says may be a mail's: its words are for who asks for all there is.
            structlog.processors.format_exc_info
            if level == "debug"
            else structlog.processors.ExceptionRenderer(trace_of),
            last,
        ],
        # Below this nothing is ever said, at no cost; above it `set_level` decides.
        wrapper_class=structlog.make_filtering_bound_logger(min(_LEVELS[level], logging.INFO)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(role=role)
    logging.basicConfig(level=max(_LEVELS[level], logging.WARNING), stream=sys.stderr, force=True)
    logging.getLogger("asyncpg").setLevel(logging.ERROR)  # it retries; we tell what that means
