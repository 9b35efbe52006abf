"""An S3 server over a folder (versitygw), for large mail."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from mailyard.fleet.local.place import LOOPBACK, Place
from mailyard.fleet.local.process import Say, ServiceProcess
from mailyard.fleet.local.program import OBSTORE, VERSITYGW
from mailyard.fleet.local.service import Service

BUCKET = "mail"
_USER = "mailyard"
_REGION = "us-east-1"


class Objects(Service):
    """One server; its bucket is a folder below DATA/stage/s3/data."""

    instead = ("blobs",)
    needs = (VERSITYGW, OBSTORE)

    def __init__(self, place: Place, say: Say) -> None:
        super().__init__()
        self._port = place.port("s3")
        self._folder = place.folder("s3")
        endpoint = quote(f"http://{LOOPBACK}:{self._port}", safe=":/")
        self.settings = {
            "blobs": f"s3://{_USER}:{place.secret}@{BUCKET}/?endpoint={endpoint}&region={_REGION}"
        }
        self.processes = [
            ServiceProcess(
                "s3",
                self._folder,
                command=self._command,
                ready=self._healthy,
                say=say,
                environment={"ROOT_ACCESS_KEY": _USER, "ROOT_SECRET_KEY": place.secret},
            )
        ]

    def places(self) -> Sequence[tuple[str, str]]:
        return [("s3", f"http://{LOOPBACK}:{self._port}")]

    async def _command(self) -> Sequence[str | Path]:
        for name in ("meta", f"data/{BUCKET}"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        return (
            VERSITYGW.path(),
            *("--port", f"{LOOPBACK}:{self._port}", "--region", _REGION, "--quiet"),
            *("--health", "/health", "posix"),
            *("--sidecar", self._folder / "meta", self._folder / "data"),
        )

    async def _healthy(self) -> bool:
        reader, writer = await asyncio.open_connection(LOOPBACK, self._port)
        try:
            writer.write(b"GET /health HTTP/1.0\r\nhost: s3\r\n\r\n")
            return b" 200 " in await reader.readline()
        finally:
            writer.close()
