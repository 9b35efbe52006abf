"""Files that reports come in: plain, gzip (RFC 1952) or zip, unpacked within bounds.

A bomb costs no more than the bound: nothing is unpacked beyond it. Raises NotUnpackable alone.
"""

import struct
import zlib
from io import BytesIO
from zipfile import BadZipFile, ZipFile

from mailyard.core.errors import InvalidInput

_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_LAYERS = 3  # some reporters pack what is packed already
_DIRECTORY_BYTES = 64 * 1024  # of a zip: more than a thousand entries
_ENTRIES = 16  # looked at
_END_BYTES = 22 + 65_535  # the end of a zip's directory and its comment
_END = b"PK\x05\x06"


class NotUnpackable(InvalidInput):
    """Not a file that can be unpacked, or one that is too large."""

    code = "not_unpackable"


def unpack(data: bytes, size_bytes: int, endings: tuple[str, ...] = ()) -> bytes:
    """What is in `data`, at most `size_bytes`. Of a zip the first entry with one of `endings`, else
    the first."""
    for _ in range(_LAYERS):
        if data.startswith(_GZIP):
            data = _gunzip(data, size_bytes)
        elif data.startswith(_ZIP):
            data = _unzip(data, size_bytes, endings)
        else:
            break
    if len(data) > size_bytes:
        raise _too_large(size_bytes)
    return data


def _gunzip(data: bytes, size_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(data, size_bytes + 1)
    except zlib.error:
        raise NotUnpackable("the gzip file is damaged") from None
    if len(found) > size_bytes:
        raise _too_large(size_bytes)
    return found  # one that was cut short gives what there is: its reader sees that it ends early


def _unzip(data: bytes, size_bytes: int, endings: tuple[str, ...]) -> bytes:
    end = data.rfind(_END, max(0, len(data) - _END_BYTES))
    if end < 0 or len(data) < end + 22:
        raise NotUnpackable("the zip file has no directory")
    (directory_bytes,) = struct.unpack_from("<L", data, end + 12)
    if directory_bytes > _DIRECTORY_BYTES:
        raise NotUnpackable("the zip file has too many entries")
    try:
        with ZipFile(BytesIO(data)) as archive:
            entries = [one for one in archive.infolist()[:_ENTRIES] if not one.is_dir()]
            if not entries:
                raise NotUnpackable("the zip file is empty")
            fitting = [one for one in entries if one.filename.lower().endswith(endings)]
            with archive.open((fitting or entries)[0]) as file:
                found = file.read(size_bytes + 1)
    except NotUnpackable:
        raise
    except (
        BadZipFile, zlib.error, EOFError, OSError, ValueError, OverflowError, struct.error,
        NotImplementedError, RuntimeError,
    ):  # fmt: skip
        raise NotUnpackable("the zip file is damaged, or encrypted") from None
    if len(found) > size_bytes:
        raise _too_large(size_bytes)
    return found


def _too_large(size_bytes: int) -> NotUnpackable:
    return NotUnpackable(f"what is packed is larger than {size_bytes} bytes")
