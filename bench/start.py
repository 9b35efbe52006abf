"""How soon a platform takes its first mail, and what it costs at rest.

A first start initialises a database, migrates it, makes partitions and a first key; a later one
recovers and goes on. The clock runs from the command to the `250` of a mail sent over SMTP. At rest
the memory is the sum of PSS of the supervisor and all its descendants, PostgreSQL included.
"""

import http.client
import json
import os
import signal
import smtplib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import Row, free_port, note, report
from platform_parts import pss_bytes

STARTS = 3
REST_S = 20.0
STOP_S = 60.0
ADDRESS = "first@inbox.localhost"


def descendants(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for word in (task / "children").read_text().split():
            found += descendants(int(word))
    return found


class Platform:
    """`mailyard up` on free ports over one data folder."""

    def __init__(self, folder: Path) -> None:
        self._port, self._smtp_port = free_port(), free_port()
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("MAILYARD_")
        } | {
            "MAILYARD_DATA": str(folder / "data"),
            "MAILYARD_PORT": str(self._port),
            "MAILYARD_SMTP_PORT": str(self._smtp_port),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._key = ""

    def start_to_first_mail(self) -> float:
        """Seconds from the command to the `250` of a first mail."""
        began = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mailyard.cli.main", "up", "--json"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline())
        if ready["api_key"]:
            self._key = ready["api_key"]
            self._make_inbox()
        with smtplib.SMTP("127.0.0.1", self._smtp_port) as smtp:
            smtp.sendmail("a@elsewhere.example", [ADDRESS], "Subject: first\r\n\r\nHello\r\n")
        return time.monotonic() - began

    def _make_inbox(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request(
            "POST",
            "/v1/inboxes",
            json.dumps({"address": ADDRESS}),
            {"authorization": f"Bearer {self._key}", "content-type": "application/json"},
        )
        status = connection.getresponse().status
        if status not in (200, 201):
            raise SystemExit(f"the inbox was refused with {status}")

    def memory_at_rest(self) -> float:
        """PSS in bytes of all its processes, after a while of nothing."""
        assert self._process is not None
        time.sleep(REST_S)
        return float(sum(map(pss_bytes, descendants(self._process.pid))))

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(STOP_S)


def main() -> int:
    first: list[float] = []
    later: list[float] = []
    at_rest = 0.0
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as folder:
            platform = Platform(Path(folder))
            first.append(platform.start_to_first_mail())
            platform.stop()
            later.append(platform.start_to_first_mail())
            note(f"  first {first[-1]:.2f} s, later {later[-1]:.2f} s")
            if not at_rest:
                at_rest = platform.memory_at_rest()
            platform.stop()
    return report(
        [
            Row("first start to first mail", sorted(first)[1], "s", 8.0, less_is_better=True),
            Row("start to first mail", sorted(later)[1], "s", 3.0, less_is_better=True),
            Row("memory at rest, all", at_rest / 1e6, "MB (PSS)", 400.0, less_is_better=True),
        ]
    )


if __name__ == "__main__":
    raise SystemExit(main())
