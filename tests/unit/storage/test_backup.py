"""Names, pieces and seals of a backup, and what stays of old ones."""

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailyard.app.backup import master_keys_of
from mailyard.core.errors import ConfigurationError, NotFound
from mailyard.settings import load_settings
from mailyard.storage.backup.archive import PAGE_BYTES
from mailyard.storage.backup.keeper import kept_bases
from mailyard.storage.backup.log import assemble, is_before
from mailyard.storage.backup.manifest import Base, choose_base
from mailyard.storage.backup.seal import HEAD, Sealer, sealer_of
from mailyard.storage.backup.segment import Segment, read_segment
from mailyard.storage.backup.store import Store
from mailyard.storage.blob import BlobsAway
from mailyard.storage.blobs.folder import FolderBlobs

SIZE = 16 * 1024 * 1024
KEYS = [b"a" * 32]


def base(day: int, first_wal: str = "000000010000000000000001") -> Base:
    moment = datetime(2026, 3, day, tzinfo=UTC)
    return Base(
        id=f"{day}",
        started_at=moment,
        finished_at=moment,
        major=18,
        system_id="1",
        timeline=1,
        first_wal=first_wal,
        segment_bytes=SIZE,
        database="mailyard",
        role="postgres",
        schema=1,
        pieces=[],
        stored_bytes=0,
    )


@pytest.mark.parametrize("size", [SIZE, 1024 * 1024, 1024 * 1024 * 1024])
def test_a_segment_is_read_as_it_is_named_and_the_next_one_follows(size: int) -> None:
    last_of_a_high = Segment((1 << 32) // size - 1, 3)
    for segment in (Segment(0, 1), Segment(1, 1), last_of_a_high, last_of_a_high.after()):
        assert read_segment(segment.name(size), size) == segment
    assert last_of_a_high.after().name(size) == "000000030000000100000000"
    assert last_of_a_high.ends_at(size) == 1 << 32
    assert read_segment("00000001.history", size) is None


def test_a_segment_is_put_together_whatever_was_stored_of_it_when() -> None:
    rng = random.Random(7)
    whole = bytes(rng.randrange(1, 256) for _ in range(5 * PAGE_BYTES - 3000))
    pieces = []
    for end in (100, 9_000, 20_000, 20_001, len(whole)):
        for begin in (0, PAGE_BYTES, 2 * PAGE_BYTES):
            if begin < end:
                part = whole[begin:end]
                pieces.append((begin, part + b"\0" * (-len(part) % PAGE_BYTES)))
    for _ in range(20):
        rng.shuffle(pieces)
        assert assemble(pieces, SIZE) == whole + b"\0" * (SIZE - len(whole))


async def test_what_is_sealed_opens_in_its_place_and_nowhere_else() -> None:
    sealer = Sealer(KEYS)
    sealed = sealer.seal("wal/1", b"secret" * 1000)
    assert b"secret" not in sealed and len(sealed) < 200
    assert sealer.open("wal/1", sealed) == b"secret" * 1000
    assert Sealer([b"b" * 32, *KEYS]).open("wal/1", sealed), "an older key still opens"
    with pytest.raises(ConfigurationError, match="changed or damaged"):
        sealer.open("wal/2", sealed)
    with pytest.raises(ConfigurationError, match="changed or damaged"):
        sealer.open("wal/1", sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(ConfigurationError, match="another key"):
        Sealer([b"b" * 32]).open("wal/1", sealed)
    for cut in (b"", sealed[:10], b"XXXX" + sealed[4:]):
        with pytest.raises(ConfigurationError, match="is damaged"):
            sealer.open("wal/1", cut)


async def test_a_store_opens_with_the_key_that_it_was_made_with(tmp_path: Path) -> None:
    by_key, by_phrase = (
        Store(FolderBlobs(tmp_path / "key")),
        Store(FolderBlobs(tmp_path / "phrase")),
    )
    await by_key.prepare()
    await by_phrase.prepare()
    sealed = (await sealer_of(by_key, "", lambda: KEYS)).seal("x", b"1")
    assert (await sealer_of(by_key, "", lambda: KEYS)).open("x", sealed) == b"1"
    with pytest.raises(ConfigurationError, match="another key"):
        await sealer_of(by_key, "", lambda: [b"b" * 32])
    with pytest.raises(ConfigurationError, match="was made without one"):
        await sealer_of(by_key, "phrase", lambda: KEYS)

    sealed = (await sealer_of(by_phrase, "phrase", list)).seal("x", b"1")
    assert (await sealer_of(by_phrase, "phrase", list)).open("x", sealed) == b"1"
    with pytest.raises(ConfigurationError, match="another key"):
        await sealer_of(by_phrase, "fraze", list)
    with pytest.raises(ConfigurationError, match="needs MAILYARD_BACKUP_PASSPHRASE"):
        await sealer_of(by_phrase, "", lambda: KEYS)
    await by_phrase.put(HEAD, b"nonsense")
    with pytest.raises(ConfigurationError, match="damaged"):
        await sealer_of(by_phrase, "phrase", list)


async def test_a_folder_keeps_lists_and_forgets(tmp_path: Path) -> None:
    store = Store(FolderBlobs(tmp_path / "deep" / "store"))
    with pytest.raises(BlobsAway, match="is it mounted"):
        await store.names("base/")
    await store.prepare()
    assert await store.names("base/") == []
    for name in ("base/1/00000001", "base/1/manifest", "wal/A", "wal/A"):
        await store.put(name, name.encode())
    assert await store.names("base/") == ["base/1/00000001", "base/1/manifest"]
    assert await store.get("wal/A") == b"wal/A"
    with pytest.raises(NotFound):
        await store.get("wal/B")
    for name in ("base/1/00000001", "base/1/manifest", "base/1/manifest"):
        await store.delete(name)
    assert await store.names("base/") == [] and await store.names("wal/") == ["wal/A"]


def test_a_restore_begins_with_the_newest_base_that_was_whole() -> None:
    bases = [base(1), base(2), base(3)]
    assert choose_base(bases, None).id == "3"
    assert choose_base(bases, datetime(2026, 3, 2, 12, tzinfo=UTC)).id == "2"
    with pytest.raises(NotFound, match="nothing from before that"):
        choose_base(bases, datetime(2026, 2, 1, tzinfo=UTC))
    with pytest.raises(NotFound, match="no finished base backup"):
        choose_base([], None)


def test_every_instant_of_the_days_kept_can_be_restored() -> None:
    bases = [base(day) for day in range(1, 21)]
    since = datetime(2026, 3, 15, 12, tzinfo=UTC)
    kept = kept_bases(bases, since)
    assert [one.id for one in kept] == ["15", "16", "17", "18", "19", "20"]
    for hours in range(0, 100, 7):
        assert choose_base(kept, since + timedelta(hours=hours)) in kept
    assert [one.id for one in kept_bases(bases[:3], since)] == ["3"], "the newest always stays"


def test_the_log_before_the_oldest_base_that_stays_is_of_no_use() -> None:
    first = Segment(16, 2)
    assert is_before("wal/00000001000000000000000F", first, SIZE)
    assert is_before("wal/00000001000000000000000F-00002000", first, SIZE)
    for name in ("wal/000000010000000000000010", "wal/00000002.history", "wal/else"):
        assert not is_before(name, first, SIZE)


def test_a_restore_makes_no_key_that_would_open_nothing(tmp_path: Path) -> None:
    settings = load_settings({"MAILYARD_DATA": str(tmp_path)})
    with pytest.raises(ConfigurationError, match=r"put master\.key of then back"):
        master_keys_of(settings, make=False)
    assert not list(tmp_path.iterdir())
    assert master_keys_of(settings) == master_keys_of(settings, make=False)
