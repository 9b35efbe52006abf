"""Azurite, Azure's own emulator of its blob storage, as a process on a port of its own."""

import base64
import hmac
import os
import subprocess
import urllib.request
from contextlib import suppress
from email.utils import formatdate
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep
from urllib.error import HTTPError, URLError
from urllib.parse import quote

import pytest
from ports import free_ports

VERSION = "3.35.0"
ACCOUNT = "mailyardtest"
KEY = base64.b64encode(b"a key of the tests, no secret").decode()
CONTAINER = "mail"
_CACHE = Path(os.environ.get("MAILYARD_FLEET_CACHE") or (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mailyard-fleet"
))  # fmt: skip
_FOLDER = _CACHE / f"azurite-{VERSION}"
_PROGRAM = _FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
_API = "2021-08-06"
_PATIENCE_S = 120.0


class AzureServer:
    """One container, whose blobs lie below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}/{ACCOUNT}"

    def url(self, prefix: str, key: str = KEY) -> str:
        """The address as MAILYARD_BLOBS has it."""
        return f"az://{ACCOUNT}:{quote(key, safe='')}@{CONTAINER}/{prefix}?endpoint={self.endpoint}"

    def start(self) -> None:
        """Start it; it answers and has its container on return."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("node", str(_PROGRAM), "--location", str(self._folder), "--silent"),
                    *("--blobHost", "127.0.0.1", "--blobPort", str(self.port)),
                    *("--skipApiVersionCheck", "--disableTelemetry"),
                ],
                env=os.environ | {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"},
                stdout=log,
                stderr=log,
            )
        until = monotonic() + _PATIENCE_S
        while monotonic() < until:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            with suppress(URLError, ConnectionError, TimeoutError):
                self._make_container()
                return
            sleep(0.1)
        raise AssertionError("Azurite does not answer")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _make_container(self) -> None:
        """PUT of the container, signed with the shared key (Azure's REST reference)."""
        date = formatdate(usegmt=True)
        signed = "\n".join(
            [
                *("PUT", *([""] * 11), f"x-ms-date:{date}", f"x-ms-version:{_API}"),
                *(f"/{ACCOUNT}/{ACCOUNT}/{CONTAINER}", "restype:container"),
            ]
        )
        mac = hmac.new(base64.b64decode(KEY), signed.encode(), sha256).digest()
        request = urllib.request.Request(
            f"{self.endpoint}/{CONTAINER}?restype=container",
            method="PUT",
            headers={
                "x-ms-date": date,
                "x-ms-version": _API,
                "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}",
            },
        )
        try:
            urllib.request.urlopen(request, timeout=5.0).close()
        except HTTPError as error:
            raise AssertionError(f"Azurite makes no container: {error.read()!r}") from error


def is_installed() -> bool:
    """Whether the emulator is here. In CI it must be."""
    if (_FOLDER / "complete").exists():
        return True
    if os.environ.get("CI"):
        pytest.fail("Azurite is missing: tests/services/install_azurite.sh")
    return False
