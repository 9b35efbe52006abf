"""A pass-through file system that forgets at a cut what was not fsynced: `lossy_fs.py LOWER MOUNT`.

Data that is written stays in this process's memory until fsync or fdatasync brings it to LOWER; a
SIGKILL of this process is therefore a power cut. Names (create, rename, unlink) reach LOWER at
once, as on a journalled file system in ordered mode, so a file renamed into place without an fsync
is found empty: the classical way to lose a configuration file.
"""

import errno
import os
import stat
import sys
from typing import Any

import mfusepy

PAGE = 8192


class Volatile:
    """What one file holds beyond its durable state.

    `floor`: durable bytes above it were cut away by a truncate that is not durable itself.
    """

    __slots__ = ("floor", "pages", "size")

    def __init__(self, durable_size: int) -> None:
        self.pages: dict[int, bytearray] = {}
        self.size = durable_size
        self.floor = durable_size

    def durable(self, fd: int, size: int, offset: int) -> bytes:
        """Durable bytes in [offset, offset + size), zeros where there are none."""
        visible = max(0, min(size, self.floor - offset))
        return os.pread(fd, visible, offset).ljust(size, b"\0") if visible else bytes(size)

    def page(self, fd: int, number: int) -> bytearray:
        page = self.pages.get(number)
        if page is None:
            page = bytearray(self.durable(fd, PAGE, number * PAGE))
            self.pages[number] = page
        return page

    def write(self, fd: int, data: bytes, offset: int) -> None:
        at, end = offset, offset + len(data)
        while at < end:
            number, start = divmod(at, PAGE)
            count = min(PAGE - start, end - at)
            piece = data[at - offset : at - offset + count]
            if count == PAGE:
                self.pages[number] = bytearray(piece)
            else:
                self.page(fd, number)[start : start + count] = piece
            at += count
        self.size = max(self.size, end)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        found = bytearray(self.durable(fd, size, offset))
        for number in range(offset // PAGE, (offset + size + PAGE - 1) // PAGE):
            page = self.pages.get(number)
            if page is not None:
                first, last = max(offset, number * PAGE), min(offset + size, (number + 1) * PAGE)
                found[first - offset : last - offset] = page[
                    first - number * PAGE : last - number * PAGE
                ]
        return bytes(found)

    def truncate(self, fd: int, length: int) -> None:
        if length < self.size:
            self.pages = {n: page for n, page in self.pages.items() if n * PAGE < length}
            if length % PAGE:
                page = self.page(fd, length // PAGE)
                page[length % PAGE :] = bytes(PAGE - length % PAGE)
            self.floor = min(self.floor, length)
        self.size = length

    def settle(self, fd: int) -> None:
        """Make everything durable."""
        if self.floor < os.fstat(fd).st_size:
            os.ftruncate(fd, self.floor)
        for number, page in sorted(self.pages.items()):
            os.pwrite(fd, page, number * PAGE)
        os.ftruncate(fd, self.size)


class LossyFiles(mfusepy.Operations):  # type: ignore[misc]
    """The operations of FUSE over `lower`, in one thread."""

    use_ns = True

    def __init__(self, lower: str) -> None:
        self._lower = lower
        self._volatile: dict[int, Volatile] = {}  # by inode

    def _path(self, path: str) -> str:
        return self._lower + path

    def _of(self, fd: int) -> Volatile:
        status = os.fstat(fd)
        volatile = self._volatile.get(status.st_ino)
        if volatile is None:
            volatile = self._volatile[status.st_ino] = Volatile(status.st_size)
        return volatile

    def _give(self, path: str) -> None:
        uid, gid, _ = mfusepy.fuse_get_context()
        os.lchown(path, uid, gid)

    # Files.

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        fd = os.open(self._path(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        self._volatile.pop(os.fstat(fd).st_ino, None)
        self._give(self._path(path))
        return fd

    def open(self, path: str, flags: int) -> int:
        fd = os.open(self._path(path), os.O_RDWR)
        if flags & os.O_TRUNC:
            self._of(fd).truncate(fd, 0)
        return fd

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        volatile = self._volatile.get(os.fstat(fh).st_ino)
        if volatile is None:
            return os.pread(fh, size, offset)
        return volatile.read(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        self._of(fh).write(fh, data, offset)
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        fd = os.open(self._path(path), os.O_RDWR)
        try:
            self._of(fd).truncate(fd, length)
        finally:
            os.close(fd)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        volatile = self._volatile.pop(os.fstat(fh).st_ino, None)
        if volatile is not None:
            volatile.settle(fh)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def flush(self, path: str, fh: int) -> None:
        """A close makes nothing durable."""

    # Names.

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._path(path)) if fh is None else os.fstat(fh)
        names = ("mode", "nlink", "uid", "gid", "size", "ino")
        found = {f"st_{name}": getattr(status, f"st_{name}") for name in names}
        for name in ("atime", "mtime", "ctime"):
            found[f"st_{name}"] = getattr(status, f"st_{name}_ns")
        volatile = self._volatile.get(status.st_ino)
        if volatile is not None and stat.S_ISREG(status.st_mode):
            found["st_size"] = volatile.size
        return found

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._path(path))]  # noqa: PTH208

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._path(path), mode)  # noqa: PTH102
        self._give(self._path(path))

    def mknod(self, path: str, mode: int, dev: int) -> None:
        os.mknod(self._path(path), mode, dev)
        self._give(self._path(path))

    def symlink(self, target: str, source: str) -> None:
        os.symlink(source, self._path(target))  # noqa: PTH211
        self._give(self._path(target))

    def link(self, target: str, source: str) -> None:
        os.link(self._path(source), self._path(target))

    def readlink(self, path: str) -> str:
        return os.readlink(self._path(path))  # noqa: PTH115

    def rename(self, old: str, new: str) -> None:
        self._forget_last_link(new)
        os.rename(self._path(old), self._path(new))  # noqa: PTH104

    def unlink(self, path: str) -> None:
        self._forget_last_link(path)
        os.unlink(self._path(path))  # noqa: PTH108

    def _forget_last_link(self, path: str) -> None:
        try:
            status = os.lstat(self._path(path))
        except FileNotFoundError:
            return
        if status.st_nlink == 1:
            self._volatile.pop(status.st_ino, None)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._path(path))  # noqa: PTH106

    def chmod(self, path: str, mode: int) -> None:
        os.chmod(self._path(path), mode)  # noqa: PTH101

    def chown(self, path: str, uid: int, gid: int) -> None:
        os.lchown(self._path(path), uid, gid)

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        os.utime(self._path(path), ns=times)

    def statfs(self, path: str) -> dict[str, Any]:
        found = os.statvfs(self._path(path))
        names = ("bavail", "bfree", "blocks", "bsize", "favail", "ffree", "files", "frsize")
        return {f"f_{name}": getattr(found, f"f_{name}") for name in (*names, "namemax")}

    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        """Names are durable already."""

    def access(self, path: str, mode: int) -> None:
        if not os.path.lexists(self._path(path)):
            raise mfusepy.FuseOSError(errno.ENOENT)


def main() -> None:
    lower, mount = sys.argv[1:3]
    os.umask(0)
    mfusepy.FUSE(
        LossyFiles(lower),
        mount,
        foreground=True,
        nothreads=True,
        allow_other=True,
        default_permissions=True,
        fsname="lossy",
    )


if __name__ == "__main__":
    main()
