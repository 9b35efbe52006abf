"""Files that commands are given: what cannot be read is said with its name and the reason."""

import sys
from pathlib import Path

from mailyard.core.errors import InvalidInput


def read(path: Path) -> bytes:
    """All of a file. Raises InvalidInput."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error


def read_text(path: Path) -> str:
    """All of a file of text; `-` is the standard input. Raises InvalidInput."""
    content = sys.stdin.buffer.read() if str(path) == "-" else read(path)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{path} is not UTF-8 text: line {line}; save it as UTF-8") from error
