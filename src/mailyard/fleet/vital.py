"""A task without which the process is of no use: when it fails, so does the process.

The supervisor then starts another, with backoff, which is better than a process that looks alive.
"""

import asyncio
import os

import structlog

_LOG = structlog.get_logger(__name__)


def vital(task: "asyncio.Task[None]") -> "asyncio.Task[None]":
    """Watch `task`: an exception in it is logged and ends the process at once."""
    task.add_done_callback(_end_if_failed)
    return task


def _end_if_failed(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        _LOG.critical("vital_task_failed", task=task.get_name(), exc_info=task.exception())
        os._exit(1)
