"""Power cuts: what was promised is there although everything not fsynced is gone.

A SIGKILL never tests fsync, for the kernel keeps what was written. Here the whole data folder lies
on a file system that forgets at a cut what was not fsynced (`tests/lossy_fs.py`).
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from crash_ledger import ApiSender, CampaignRunner, SmtpClient, build_world
from crash_verdict import audit, until_alive

from mailyard.proving.own_platform import OwnPlatform

LONG = bool(os.environ.get("MAILYARD_TEST_LONG"))
CUTS = 50 if LONG else 2
FILE_SYSTEM = Path(__file__).parent.parent / "lossy_fs.py"
UNKNOWN_PER_CUT = 200  # one worker, and one listener in the middle of its mail

pytestmark = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK) and os.environ.get("CI") != "true",
    reason="this machine has no /dev/fuse",
)


class LossyDisk:
    """The mount and the process behind it."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "disk"
        self.lower = folder / "durable"
        self.mount.mkdir()
        self.lower.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    def attach(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(FILE_SYSTEM), str(self.lower), str(self.mount)]
        )

    async def until_attached(self) -> None:
        async with asyncio.timeout(20):
            while not os.path.ismount(self.mount):
                assert self._process is not None
                assert self._process.poll() is None, "the file system did not start"
                await asyncio.sleep(0.02)

    def cut(self) -> None:
        """What is not durable is gone, and every open file is of no use."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def detach(self) -> None:
        subprocess.run(["umount", "-l", str(self.mount)], check=False, capture_output=True)


def test_the_file_system_forgets_what_was_not_fsynced(tmp_path: Path) -> None:
    disk = LossyDisk(tmp_path)
    disk.attach()
    asyncio.run(disk.until_attached())
    try:
        kept = os.open(disk.mount / "kept", os.O_RDWR | os.O_CREAT)
        os.write(kept, b"a" * 10_000)
        os.fsync(kept)
        os.write(kept, b"b" * 10_000)
        os.pwrite(kept, b"c" * 10, 5)
        os.ftruncate(kept, 15_000)
        assert os.pread(kept, 20_000, 0) == b"a" * 5 + b"c" * 10 + b"a" * 9_985 + b"b" * 5_000
        (disk.mount / "new").write_bytes(b"never fsynced")
        (disk.mount / "new").rename(disk.mount / "renamed")
        assert (disk.mount / "renamed").read_bytes() == b"never fsynced"
        os.close(kept)
    finally:
        disk.cut()
        disk.detach()
    disk.attach()
    asyncio.run(disk.until_attached())
    try:
        assert (disk.mount / "kept").read_bytes() == b"a" * 10_000
        assert (disk.mount / "renamed").read_bytes() == b""
    finally:
        disk.cut()
        disk.detach()


async def test_what_was_promised_survives_power_cuts(tmp_path: Path) -> None:
    random = Random(int(os.environ.get("MAILYARD_TEST_SEED", "4711")))
    disk = LossyDisk(tmp_path)
    # The first start makes its files durable by syncfs, of which FUSE tells a file system nothing.
    before = OwnPlatform(tmp_path, {"MAILYARD_DATA": str(disk.lower / "data")})
    api_key = (await before.start()).api_key
    await before.stop()
    settings = {"MAILYARD_DATA": str(disk.mount / "data")}
    platform = OwnPlatform(tmp_path, settings, api_key=api_key)
    disk.attach()
    await disk.until_attached()
    try:
        address = await platform.start()
        world = await build_world(address, tmp_path, inboxes=200)
        clients = [
            asyncio.create_task(work)
            for work in (
                *(SmtpClient(world, f"smtp{n}", 0.02).run() for n in range(3)),
                *(ApiSender(world, f"api{n}", 0.05).run() for n in range(2)),
                CampaignRunner(world).run(),
            )
        ]
        for number in range(CUTS):
            await asyncio.sleep(random.uniform(0.3, 3.0))
            world.ledger.note(f"cut {number}")
            disk.cut()
            await platform.kill()
            disk.detach()
            disk.attach()
            await disk.until_attached()
            await platform.start()
        await until_alive(world, patience_s=30.0)
        world.stopping.set()
        await asyncio.gather(*clients)
        findings = await audit(platform.environment, world, settle_s=120.0 if LONG else 60.0)
    finally:
        await platform.stop()
        disk.cut()
        disk.detach()
    print(
        f"{CUTS} cuts; {findings.checked} promises checked, {findings.unknown} unknown, "
        f"{findings.on_its_way} on their way "
        f"after {findings.settled_s:.0f} s"
    )
    assert world.ledger.refused == []
    assert findings.lost == []
    assert findings.twice == []
    assert findings.unknown <= UNKNOWN_PER_CUT * CUTS
    assert len(world.ledger.by_smtp) > 5 * CUTS
    assert len(world.ledger.by_api) > CUTS
