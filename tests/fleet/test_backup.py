"""The drill: an installation is destroyed, restored to an instant, and compared with a ledger."""

import asyncio
import json
import os
import shutil
import smtplib
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import asyncpg
import pytest
from postgres_servers import DEBIAN_15, servers
from running_platform import Platform, await_ready, begin, running_platform, wait_until
from s3_server import S3Server, is_installed

from mailyard.core.errors import ConfigurationError
from mailyard.storage.backup.archive import WalArchiver
from mailyard.storage.backup.base_backup import take_base
from mailyard.storage.backup.recover import restore
from mailyard.storage.backup.seal import Sealer, sealer_of
from mailyard.storage.backup.store import Store
from mailyard.storage.blobs.folder import MARK, FolderBlobs
from mailyard.storage.blobs.object_store import ObjectStoreBlobs
from mailyard.storage.migrate import migrate

PASSPHRASE = "correct horse battery staple"
# Three installations are started one after the other: a busy machine needs minutes for that.
pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A mail that got its 202, and when it was asked for and answered."""

    id: str
    asked_at: datetime
    answered_at: datetime


async def send(platform: Platform, amount: int) -> list[Accepted]:
    headers = {"authorization": f"Bearer {platform.ready['api_key']}"}
    found: list[Accepted] = []
    async with aiohttp.ClientSession(f"http://127.0.0.1:{platform.port}") as session:
        for number in range(amount):
            body = {
                "from": "me@inbox.localhost",
                "to": ["you@inbox.localhost"],
                "subject": f"Mail {number}",
                "text": "Hello",
            }
            asked_at = datetime.now(UTC)
            async with session.post("/v1/emails", json=body, headers=headers) as answer:
                assert answer.status == 202, await answer.text()
                email_id = (await answer.json())["id"]
            found.append(Accepted(email_id, asked_at, datetime.now(UTC)))
    return found


async def present(platform: Platform, key: str, mails: list[Accepted]) -> list[bool]:
    headers = {"authorization": f"Bearer {key}"}
    found = []
    async with aiohttp.ClientSession(f"http://127.0.0.1:{platform.port}") as session:
        for mail in mails:
            async with session.get(f"/v1/emails/{mail.id}", headers=headers) as answer:
                assert answer.status in (200, 404), await answer.text()
                found.append(answer.status == 200)
    return found


@dataclass(frozen=True, slots=True)
class Large:
    """A mail whose bytes lie in the blob store."""

    id: str
    raw: bytes


async def receive_large(platform: Platform) -> Large:
    """Into an inbox made for it."""
    headers = {"authorization": f"Bearer {platform.ready['api_key']}"}
    text = "".join(f"Line {number} of a long mail\r\n" for number in range(4_000))
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{platform.port}", headers=headers
    ) as session:
        async with session.post("/v1/inboxes", json={"name": "long-mails"}) as answer:
            inbox = await answer.json()
            assert answer.status == 201, inbox
        with smtplib.SMTP("127.0.0.1", platform.smtp_port) as smtp:
            mail = f"Subject: long\r\n\r\n{text}"
            await asyncio.to_thread(smtp.sendmail, "ada@peer.test", [inbox["address"]], mail)
        async with asyncio.timeout(180):
            while True:
                path = f"/v1/inboxes/{inbox['id']}/messages"
                async with session.get(path) as answer:
                    if items := (await answer.json())["items"]:
                        break
                await asyncio.sleep(0.1)
        async with session.get(f"/v1/messages/{items[0]['id']}/raw") as answer:
            assert answer.status == 200, await answer.text()
            return Large(items[0]["id"], await answer.read())


async def on_message(platform: Platform, key: str, method: str, path: str) -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{platform.port}") as session,
        session.request(method, f"/v1/messages/{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.read()


def command(*words: str, **settings: str) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if "MAILYARD_" not in name}
    environment |= {f"MAILYARD_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run(
        [sys.executable, "-m", "mailyard.cli.main", *words, "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def destroy(platform: Platform) -> None:
    """The machine stops at once, and its disk is gone."""
    pids = platform.pids
    platform.process.kill()
    platform.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in pids))
    shutil.rmtree(platform.data)


async def test_an_installation_is_restored_to_any_instant(tmp_path: Path) -> None:
    store = tmp_path / "store"
    settings = {
        "backup": f"file://{store}",
        "backup_passphrase": PASSPHRASE,
        "backup_wal_s": "0.5",
        "backup_try_days": "0",
        "blobs": f"file://{tmp_path}/blobs",
        "blobs_above": "16KB",
    }
    command("blobs", "prepare", **settings)
    platform = await_ready(begin(tmp_path / "data", **settings))
    key = platform.ready["api_key"]
    try:
        wait_until(lambda: any(store.glob("base/*/manifest")), 180.0)
        before = await send(platform, 40)
        large = await receive_large(platform)
        instant = datetime.now(UTC)
        assert (await on_message(platform, key, "DELETE", large.id))[0] == 200
        after = await send(platform, 40)
        safe_at = after[-1].answered_at.timestamp()
        wait_until(lambda: _newest(store) > safe_at + 1.0, 180.0)
        at_risk = await send(platform, 40)
        killed_at = datetime.now(UTC)
    finally:
        destroy(platform)
    assert not [path for path in store.rglob("*") if path.is_file() and _readable(path)]

    newest, started = tmp_path / "newest", monotonic()
    done = command("restore", "--into", str(newest), **settings)
    # One that knows no backup lets go of the bytes of what was deleted, so it has its own.
    shutil.copytree(tmp_path / "blobs", tmp_path / "blobs-newest")
    own = {**settings, "backup": "", "blobs": f"file://{tmp_path}/blobs-newest"}
    with running_platform(newest, **own) as restored:
        rto_s = monotonic() - started
        assert all(await present(restored, key, [*before, *after]))
        assert (await on_message(restored, key, "GET", f"{large.id}/raw"))[0] == 404
        kept = [mail for mail in at_risk if (await present(restored, key, [mail]))[0]]
        assert restored.stop() == 0
    last = kept[-1] if kept else after[-1]
    rpo_s = (killed_at - last.answered_at).total_seconds()
    print(f"\nRPO {rpo_s:.1f} s, RTO {rto_s:.1f} s, log replayed in {done['seconds']} s", end=" ")

    then = tmp_path / "then"
    done = command("restore", "--at", instant.isoformat(), "--into", str(then), **settings)
    assert not done["short"]
    bases = len(list(store.glob("base/*/manifest")))
    with running_platform(then, **settings) as restored:
        assert all(await present(restored, key, before)), "what was accepted before is there"
        assert not any(await present(restored, key, [*after, *at_risk])), "what came later is not"
        again = await on_message(restored, key, "GET", f"{large.id}/raw")
        assert again == (200, large.raw), "and its bytes outside the database too"
        assert await paused(restored, key) == {"email-send", "email-bulk"}
        # The store's log is of another life by now: a base backup of this one begins anew.
        wait_until(lambda: len(list(store.glob("base/*/manifest"))) > bases, 180.0)
        tried = command("backup", "try", **settings, data=str(then))
        assert tried["segments"] >= 0 and tried["seconds"] > 0
        assert not list((then / "backup").glob("trial-*"))
        headers = {"authorization": f"Bearer {key}"}
        async with (
            aiohttp.ClientSession(f"http://127.0.0.1:{restored.port}") as session,
            session.get("/v1/installation/backups", headers=headers) as answer,
        ):
            runs = (await answer.json())["items"]
        assert {(run["kind"], run["good"]) for run in runs} == {("base", True), ("drill", True)}
        findings = examine(then, **settings)
        assert findings["backup"]["grade"] == "good", findings["backup"]
        assert restored.stop() == 0


def examine(data: Path, **settings: str) -> dict[str, dict[str, str]]:
    answer = command("doctor", **settings, data=str(data))
    return {finding["check"]: finding for finding in answer["findings"]}


async def paused(platform: Platform, key: str) -> set[str]:
    headers = {"authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(f"http://127.0.0.1:{platform.port}") as session,
        session.get("/v1/queues", headers=headers) as answer,
    ):
        items = (await answer.json())["items"]
        return {item["queue"] for item in items if item["paused"]}


def _newest(store: Path) -> float:
    return max((path.stat().st_mtime for path in store.glob("wal/*")), default=0.0)


def _readable(path: Path) -> bool:
    """Whether a file shows something of what it holds."""
    content = path.read_bytes()
    return path.name not in ("backup.json", MARK) and (
        not content.startswith(b"MYB1") or b"inbox.localhost" in content
    )


async def test_a_server_of_ones_own_is_restored_with_its_own_programs(tmp_path: Path) -> None:
    """Debian's PostgreSQL 15, its log streamed, and the instant between two rows."""
    store, sealer = Store(FolderBlobs(tmp_path / "store")), Sealer([b"k" * 32])
    with servers(tmp_path / "servers", standbys=0, programs=lambda: DEBIAN_15) as (server,):
        await migrate(server.url())
        server.sql("CREATE TABLE note (id bigint, at timestamptz DEFAULT clock_timestamp())")
        await store.prepare()
        archiver = WalArchiver(
            store=store,
            sealer=sealer,
            url=server.url(),
            spool=tmp_path / "spool",
            part_every_s=0.0,
        )
        assert not await archiver.start(), "the first log of a store begins with a gap"
        base = await take_base(store, sealer, server.url(), role="postgres")
        server.sql("INSERT INTO note (id) VALUES (1)")
        instant = datetime.fromisoformat(server.sql("SELECT clock_timestamp()"))
        for number in range(2, 5):
            server.sql(f"INSERT INTO note (id) VALUES ({number})")
            server.sql("SELECT pg_switch_wal()")
        server.sql("INSERT INTO note (id) VALUES (5)")
        await stored_up_to(archiver, store, whole=3)
        await archiver.stop()
        assert await archiver.start(), "begun again, it goes on where it was"
        server.sql("INSERT INTO note (id) VALUES (6)")
        await stored_up_to(archiver, store, whole=3)
        await archiver.stop()
        shutil.rmtree(tmp_path / "spool")
        assert await archiver.start(), "on another machine too: the slot held what was not stored"
        server.sql("INSERT INTO note (id) VALUES (7)")
        server.sql("SELECT pg_switch_wal()")
        await stored_up_to(archiver, store, whole=4)
        await archiver.stop()
    assert base.major == 15
    found: list[str] = []

    async def look(connection: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[str]:
        rows = await connection.fetch("SELECT id FROM note ORDER BY id")
        found.append(",".join(str(row["id"]) for row in rows))
        yield "looked"

    for number, at in enumerate((instant, None)):
        await restore(store, sealer, tmp_path / f"d{number}", at=at, afterwards=look)
    assert found == ["1", "1,2,3,4,5,6,7"]

    late = datetime(2100, 1, 1, tzinfo=UTC)
    short = await restore(store, sealer, tmp_path / "late", at=late)
    assert short.short, "the log ends before that: told, and restored as far as it goes"
    piece = next((tmp_path / "store" / "base").glob("*/00000001"))
    content = bytearray(piece.read_bytes())
    content[len(content) // 2] ^= 1
    piece.write_bytes(content)
    with pytest.raises(ConfigurationError, match="changed or damaged"):
        await restore(store, sealer, tmp_path / "damaged")
    assert not (tmp_path / "damaged" / "postgres").exists()


async def test_a_backup_lies_in_an_object_store_as_in_a_folder(tmp_path: Path) -> None:
    if not is_installed():
        pytest.skip("versitygw is not installed: tests/services/install_s3.sh")
    (tmp_path / "s3").mkdir()
    s3 = S3Server(tmp_path / "s3")
    s3.start()
    try:
        store = Store(ObjectStoreBlobs(s3.url("backups/here")))
        await store.prepare()
        sealer = await sealer_of(store, PASSPHRASE, list)
        with servers(tmp_path / "servers", standbys=0, programs=lambda: DEBIAN_15) as (server,):
            await migrate(server.url())
            archiver = WalArchiver(
                store=store,
                sealer=sealer,
                url=server.url(),
                spool=tmp_path / "spool",
                part_every_s=0.0,
            )
            await archiver.start()
            await take_base(store, sealer, server.url(), role="postgres", keys=b"the keys")
            server.sql("CREATE TABLE note AS SELECT 42 AS id")
            server.sql("SELECT pg_switch_wal()")
            server.sql("INSERT INTO note VALUES (43)")
            await stored_up_to(archiver, store, whole=1)
            await archiver.stop()
        again = await sealer_of(store, PASSPHRASE, list)
        found: list[int] = []

        async def look(connection: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[str]:
            found.extend(row["id"] for row in await connection.fetch("SELECT id FROM note"))
            yield "looked"

        await restore(store, again, tmp_path / "data", afterwards=look)
        assert found == [42, 43]
        assert (tmp_path / "data" / "master.key").read_bytes() == b"the keys"
    finally:
        s3.stop()


async def stored_up_to(archiver: WalArchiver, store: Store, *, whole: int) -> None:
    """Until so many whole segments are stored, and a part of the next."""
    async with asyncio.timeout(180):
        while True:
            await archiver.step()
            names = await store.names("wal/")
            segments = sorted(name for name in names if "-" not in name)
            parts = [name for name in names if "-" in name]
            if len(segments) >= whole and parts and max(parts) > segments[-1]:
                await archiver.step()
                return
