"""Files one after the other (POSIX.1-2017 pax, `ustar`), as a stream in and out.

Only what a folder of mails needs: plain files. Links, folders and what else an archive may hold is
passed over and never made. A reader holds one file and what it was fed last; nothing is unpacked to
a disk, so a name in an archive is a word and leads nowhere.
"""

from typing import NamedTuple

BLOCK_BYTES = 512
END = b"\0" * (2 * BLOCK_BYTES)
_NAME_BYTES = 99
_PLAIN = (b"0", b"\0", b"7")


class TarFile(NamedTuple):
    """The `number`-th plain file, from 1; `content` is None when it is over the limit."""

    number: int
    name: str
    content: bytes | None


class NoTar(ValueError):
    """What was fed is no archive, or broke off."""


class TarReader:
    """Cuts an archive that comes in pieces into its files; none may have more than `most_bytes`."""

    __slots__ = ("_ended", "_held", "_left", "_most_bytes", "_name", "_number", "_over", "_padding")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = bytearray()
        self._left = -1  # bytes of the file being read; -1 between two files
        self._padding = 0
        self._name: str | None = None  # None: what is passed over
        self._over = False
        self._number = 0
        self._ended = False

    def feed(self, piece: bytes) -> list[TarFile]:
        """The files that `piece` completes. Raises NoTar."""
        files: list[TarFile] = []
        self._held += piece
        while not self._ended:
            if self._left < 0:
                if len(self._held) < BLOCK_BYTES:
                    break
                self._head(bytes(self._held[:BLOCK_BYTES]))
                del self._held[:BLOCK_BYTES]
            elif self._name is None or self._over:
                whole = self._left + self._padding
                dropped = min(whole, len(self._held))
                del self._held[:dropped]
                self._left, self._padding = whole - dropped, 0
                if self._left:
                    break
                if self._name is not None:
                    files.append(self._file(None))
                self._left = -1
            elif len(self._held) < self._left + self._padding:
                break
            else:
                files.append(self._file(bytes(self._held[: self._left])))
                del self._held[: self._left + self._padding]
                self._left = -1
        if self._ended:
            self._held.clear()
        return files

    def close(self) -> None:
        """Raises NoTar when a file broke off."""
        if self._left >= 0 or self._held:
            raise NoTar("the archive breaks off")

    def _file(self, content: bytes | None) -> TarFile:
        self._number += 1
        return TarFile(self._number, self._name or "", content)

    def _head(self, block: bytes) -> None:
        if block == b"\0" * BLOCK_BYTES:
            self._ended = True
            return
        told = block[148:156].strip(b" \0")
        if not told.isdigit() or _checksum(block) != int(told, 8):
            raise NoTar("this is no tar archive")
        size = block[124:136].strip(b" \0") or b"0"
        try:
            self._left = int(size, 8)
        except ValueError:
            raise NoTar("a file of the archive has no readable size") from None
        self._padding = -self._left % BLOCK_BYTES
        plain = block[156:157] in _PLAIN
        self._name = block[:100].partition(b"\0")[0].decode("utf-8", "replace") if plain else None
        self._over = self._left > self._most_bytes


def tar_entry(name: str, content: bytes, unix_s: int) -> bytes:
    """One plain file; `name` is cut to what a header holds."""
    head = bytearray(BLOCK_BYTES)
    head[0:_NAME_BYTES] = name.encode("utf-8", "replace")[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
    head[100:108] = b"0000644\0"
    head[108:116] = head[116:124] = b"0000000\0"
    head[124:136] = b"%011o\0" % len(content)
    head[136:148] = b"%011o\0" % max(0, unix_s)
    head[148:156] = b"        "
    head[156:157] = b"0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % _checksum(bytes(head))
    return b"".join((head, content, b"\0" * (-len(content) % BLOCK_BYTES)))


def _checksum(block: bytes) -> int:
    return sum(block) - sum(block[148:156]) + 8 * 32
