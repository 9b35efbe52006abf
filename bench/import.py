"""An import of a million contacts: how fast, and how much memory it adds.

The file (some 90 MB, quoted names, three attributes, one row in a thousand bad) is generated as it
is uploaded. Memory is the sum of PSS of all processes of the platform, PostgreSQL included, at its
peak during upload and import over what it was before; the clock runs from the first byte to the
last row. The file is then imported again, which must change nothing.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop
from measure import Row, note, report
from platform_parts import pss_bytes

from mailyard.proving.chaos import victims_of
from mailyard.proving.client import ApiClient
from mailyard.proving.own_platform import OwnPlatform

ROWS = int(os.environ.get("ROWS", 1_000_000))
BAR_ROWS_PER_S = 20_000.0
BAR_MB = 150.0
BAD_EVERY = 1_000
REST_S = 5.0
CHUNK_ROWS = 2_000


async def csv() -> AsyncIterator[bytes]:
    """The file, piece by piece."""
    yield b"Name;E-Mail;City;Plan;Score\r\n"
    for start in range(0, ROWS, CHUNK_ROWS):
        yield "".join(
            f'"Person, {n} ""X""";'
            + (f"person{n}@example{n % 997}.org" if n % BAD_EVERY else "nobody")
            + f";Kraków {n % 500};plan-{n % 7};{n % 100}\r\n"
            for n in range(start, min(start + CHUNK_ROWS, ROWS))
        ).encode()


def memory_bytes(platform: OwnPlatform) -> int:
    """All processes of the platform together."""
    return sum(pss_bytes(pid) for pids in victims_of(platform).values() for pid in pids)


async def bring_in(client: ApiClient, list_id: str) -> tuple[float, dict[str, int]]:
    """Seconds for one import of the file, and what became of it."""
    began = time.monotonic()
    one = await client.upload("/v1/imports", csv(), "text/csv", list_id=list_id)
    while one["state"] not in ("finished", "failed"):
        await asyncio.sleep(0.1)
        one = await client.get(f"/v1/imports/{one['id']}")
    if one["state"] == "failed":
        raise SystemExit(f"the import failed: {one['error']}")
    return time.monotonic() - began, one


async def measure(folder: Path) -> list[Row]:
    platform = OwnPlatform(folder)
    peak_bytes = 0

    async def watch() -> None:
        nonlocal peak_bytes
        while True:
            peak_bytes = max(peak_bytes, await asyncio.to_thread(memory_bytes, platform))
            await asyncio.sleep(0.5)

    async with platform as address:
        client = ApiClient(address.url, address.api_key, timeout_s=600.0)
        list_id = (await client.post("/v1/lists", {"name": "million"}))["id"]
        await asyncio.sleep(REST_S)
        rest_bytes = memory_bytes(platform)
        watching = asyncio.create_task(watch())
        seconds, one = await bring_in(client, list_id)
        note(f"  first: {seconds:.1f} s, {one['rows_imported']:,} in, {one['rows_rejected']:,} not")
        again_s, again = await bring_in(client, list_id)
        note(f"  again: {again_s:.1f} s")
        watching.cancel()
        members = (await client.get(f"/v1/lists/{list_id}"))["members"]
        await client.close()
    await asyncio.to_thread(platform.remove)
    good = ROWS - len(range(0, ROWS, BAD_EVERY))
    wrong = abs(members - good) + abs(one["rows_imported"] - good)
    wrong += abs(again["rows_rejected"] - one["rows_rejected"])
    note(f"  at rest {rest_bytes / 1e6:.0f} MB, at most {peak_bytes / 1e6:.0f} MB")
    name = f"import of {ROWS:,} contacts"
    added_mb = (peak_bytes - rest_bytes) / 1e6
    return [
        Row(name, ROWS / seconds, "rows/s", BAR_ROWS_PER_S),
        Row(f"{name}: memory added", added_mb, "MB", BAR_MB, less_is_better=True),
        Row(f"{name}: rows astray", wrong, "rows", 0.0, less_is_better=True),
    ]


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="mailyard-bench-"))
    return report(uvloop.run(measure(folder)))


if __name__ == "__main__":
    raise SystemExit(main())
