"""Two verifiers that were not written here: dkimpy, and OpenDKIM's library as Debian packs it."""

import ctypes
import ctypes.util
import os
from collections.abc import Mapping
from typing import Any

import dkim
import pytest

_ALL_IS_WELL = 0  # DKIM_STAT_OK, DKIM_CBSTAT_CONTINUE, DKIM_SIGBH_MATCH
_NO_KEY = 3  # DKIM_CBSTAT_NOTFOUND; it asks nobody else then
_PASSED = 0x04  # DKIM_SIGFLAG_PASSED


def as_arrived(content: bytes) -> bytes:
    """What SMTP makes of `content` (RFC 5321 section 4.1.1.4): it has an empty line behind the
    header and a line end at its end. The canonical forms say that this changes nothing."""
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    return content if b"\r\n\r\n" in content else content + b"\r\n"


def dkimpy_passes(content: bytes, records: Mapping[str, bytes]) -> list[bool]:
    """For each signature of `content` whether dkimpy finds it good."""

    def txt(name: bytes, timeout: int = 5) -> bytes | None:
        return records.get(name.decode().rstrip("."))

    def passes(index: int) -> bool:
        try:
            return bool(verifier.verify(index, dnsfunc=txt))
        except dkim.DKIMException:
            return False

    verifier = dkim.DKIM(as_arrived(content))
    names = [name.lower() for name, _ in verifier.headers]
    return [passes(index) for index in range(names.count(b"dkim-signature"))]


class OpenDkim:
    """libopendkim; the records are handed to it where it would ask DNS."""

    def __init__(self, path: str) -> None:
        self._records: Mapping[str, bytes] = {}
        library = self._library = ctypes.CDLL(path)
        pointer = ctypes.c_void_p
        for name in ("dkim_init", "dkim_verify"):
            getattr(library, name).restype = pointer
        for name in ("dkim_sig_getselector", "dkim_sig_getdomain"):
            getattr(library, name).restype = ctypes.c_char_p
            getattr(library, name).argtypes = [pointer]
        for name in ("dkim_sig_getflags", "dkim_sig_getbh", "dkim_sig_geterror"):
            getattr(library, name).argtypes = [pointer]
        library.dkim_sig_process.argtypes = [pointer, pointer]
        library.dkim_verify.argtypes = [pointer, ctypes.c_char_p, pointer, pointer]
        library.dkim_chunk.argtypes = [pointer, ctypes.c_char_p, ctypes.c_size_t]
        library.dkim_eom.argtypes = [pointer, pointer]
        library.dkim_free.argtypes = [pointer]
        library.dkim_getsiglist.argtypes = [pointer, pointer, pointer]
        library.dkim_init.argtypes = [pointer, pointer]
        kind = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer, pointer, ctypes.c_size_t)
        self._lookup = kind(self._key)
        self._handle = library.dkim_init(None, None)
        library.dkim_set_key_lookup.argtypes = [pointer, kind]
        library.dkim_set_key_lookup(self._handle, self._lookup)

    def _key(self, _mail: Any, signature: int, into: int, size: int) -> int:
        selector = self._library.dkim_sig_getselector(signature)
        domain = self._library.dkim_sig_getdomain(signature)
        record = self._records.get(f"{selector.decode()}._domainkey.{domain.decode()}")
        if record is None or len(record) >= size:
            return _NO_KEY
        ctypes.memmove(into, record + b"\0", len(record) + 1)
        return _ALL_IS_WELL

    def passes(self, content: bytes, records: Mapping[str, bytes]) -> list[bool]:
        """For each signature of `content` whether it is good."""
        self._records = records
        content = as_arrived(content)
        library = self._library
        status = ctypes.c_int()
        mail = library.dkim_verify(self._handle, b"test", None, ctypes.byref(status))
        try:
            library.dkim_chunk(mail, content, len(content))
            library.dkim_chunk(mail, None, 0)
            library.dkim_eom(mail, None)
            found = ctypes.POINTER(ctypes.c_void_p)()
            count = ctypes.c_int()
            if library.dkim_getsiglist(mail, ctypes.byref(found), ctypes.byref(count)):
                return []
            return [self._passed(mail, found[number]) for number in range(count.value)]
        finally:
            library.dkim_free(mail)

    def _passed(self, mail: int, signature: int | None) -> bool:
        library = self._library
        library.dkim_sig_process(mail, signature)
        return (
            bool(library.dkim_sig_getflags(signature) & _PASSED)
            and library.dkim_sig_getbh(signature) == _ALL_IS_WELL
        )


def opendkim() -> OpenDkim:
    """The library, or the test is skipped; in CI it fails."""
    path = ctypes.util.find_library("opendkim")
    if path is None:
        missing = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        missing("libopendkim is missing: apt-get install opendkim-tools")
    return OpenDkim(path)
