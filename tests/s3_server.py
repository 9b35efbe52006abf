"""A real S3 server (versitygw) over a folder, that can be killed, stopped and started again."""

import os
import signal
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from urllib.error import URLError

import pytest
from ports import free_ports

VERSION = "v1.8.0"
ACCESS_KEY, SECRET_KEY = "test", "testsecret123"
BUCKET = "mail"
_CACHE = Path(os.environ.get("MAILYARD_FLEET_CACHE") or (
    Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mailyard-fleet"
))  # fmt: skip
BINARY = _CACHE / f"versitygw-{VERSION}" / "versitygw"
_PATIENCE_S = 90.0


class S3Server:
    """One process on a port of its own. Its buckets are folders below `folder`/data."""

    def __init__(self, folder: Path, region: str = "us-east-1") -> None:
        self._folder = folder
        self._region = region
        (self.port,) = free_ports(1)
        for name in ("data", "meta", f"data/{BUCKET}"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, prefix: str = "", *, bucket: str = BUCKET, secret: str = SECRET_KEY) -> str:
        """The address as MAILYARD_BLOBS has it."""
        where = f"s3://{ACCESS_KEY}:{secret}@{bucket}/{prefix}"
        return f"{where}?endpoint={self.endpoint}&region={self._region}"

    def start(self) -> None:
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            [BINARY, "--port", f"127.0.0.1:{self.port}", "--region", self._region, "--quiet",
             "--health", "/health", "posix", "--sidecar", self._folder / "meta",
             self._folder / "data"],
            env=os.environ | {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY},
            stdout=log,
            stderr=log,
        )  # fmt: skip
        until = monotonic() + _PATIENCE_S
        while monotonic() < until:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            with suppress(URLError, ConnectionError, TimeoutError):
                urllib.request.urlopen(f"{self.endpoint}/health", timeout=1.0).close()
                return
            sleep(0.02)
        raise AssertionError("the S3 server does not answer")

    def kill(self) -> None:
        """As a crash does it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """It takes connections and says nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self._process is not None:
            self.kill()


def is_installed() -> bool:
    """Whether the server is here. In CI it must be."""
    if BINARY.exists():
        return True
    if os.environ.get("CI"):
        pytest.fail("versitygw is missing: tests/services/install_s3.sh")
    return False
