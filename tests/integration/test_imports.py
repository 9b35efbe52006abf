"""Files of contacts on their way in: every row ends as a contact or as a reject, once."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from mailyard.bus.adapters.memory import MemoryBus
from mailyard.bus.live import IMPORT_PROGRESS, START, LiveEvents
from mailyard.campaigns import import_run
from mailyard.campaigns.contact import Contact, Contacts
from mailyard.campaigns.contact_list import Lists
from mailyard.campaigns.import_run import ImportRunner
from mailyard.campaigns.importing import PART_BYTES, Import, Imports
from mailyard.core.clock import SystemClock
from mailyard.core.errors import InvalidInput, NotFound, StaleLease
from mailyard.core.ids import uuid7
from mailyard.queue.engines.postgres import PostgresEngine
from mailyard.queue.job import MEDIA, LeasedJob
from mailyard.storage.database import Database
from mailyard.storage.queries import Query

ADD_WORKSPACE = Query("INSERT INTO workspace (id, name) VALUES ($1, 'test')")
COUNT_PARTS = Query("SELECT count(*) FROM contact_import_part")
SNAPSHOT = Query(
    "SELECT c.id, c.address, c.name, c.attributes, c.updated_at, m.list_id, m.added_at "
    "FROM contact c LEFT JOIN list_member m ON m.contact_id = c.id ORDER BY c.address"
)


@dataclass
class Importing:
    """An importing platform in miniature: the services, the queue and one worker's hands."""

    database: Database
    workspace: UUID
    engine: PostgresEngine
    imports: Imports
    runner: ImportRunner
    live: LiveEvents
    contacts: Contacts
    lists: Lists

    async def upload(self, data: bytes, chunk_bytes: int = 65536, **options: object) -> Import:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), chunk_bytes):
                yield data[start : start + chunk_bytes]

        return await self.imports.upload(self.workspace, "people.csv", chunks(), **options)  # type: ignore[arg-type]

    async def lease(self) -> LeasedJob:
        jobs = await self.engine.lease([MEDIA], 1, 0.0, "test")
        return jobs[0]

    async def run(self) -> None:
        """Work off the one import that waits."""
        job = await self.lease()
        assert await self.runner.work(job, asyncio.Event())
        await self.engine.complete([job])

    async def bring_in(self, data: bytes, **options: object) -> Import:
        begun = await self.upload(data, **options)
        assert begun.state == "queued"
        await self.run()
        return await self.imports.get(self.workspace, begun.id)

    async def people(self) -> dict[str, Contact]:
        found = await self.contacts.find(self.workspace, limit=1000)
        return {contact.address: contact for contact in found}

    async def reasons(self, done: Import) -> list[tuple[int, str]]:
        rejects = await self.imports.rejects(self.workspace, done.id)
        return [(reject.line, reject.reason) for reject in rejects]

    async def snapshot(self) -> list[tuple[object, ...]]:
        return [tuple(row) for row in await self.database.fetch(SNAPSHOT)]


@pytest.fixture
async def platform(database: Database) -> Importing:
    workspace = uuid7()
    await database.execute(ADD_WORKSPACE, workspace)
    bus = MemoryBus()
    engine = PostgresEngine(database=database, bus=bus)
    live = LiveEvents(database=database, bus=bus)
    contacts = Contacts(database=database)
    return Importing(
        database=database,
        workspace=workspace,
        engine=engine,
        imports=Imports(database=database, engine=engine),
        runner=ImportRunner(database=database, contacts=contacts, live=live, clock=SystemClock()),
        live=live,
        contacts=contacts,
        lists=Lists(database=database),
    )


async def test_a_file_becomes_contacts_of_a_list(platform: Importing) -> None:
    readers = await platform.lists.create(platform.workspace, "readers")
    done = await platform.bring_in(
        b"City;E-Mail;Name\r\n"
        b'London;Ada@Example.org;"Lovelace, Ada"\r\n'
        b'"Den\nHaag";Christiaan <ch@example.org>;\r\n',
        list_id=readers.id,
    )
    assert (done.state, done.rows_imported, done.rows_rejected) == ("finished", 2, 0)
    people = await platform.people()
    assert people["ada@example.org"].name == "Lovelace, Ada"
    assert people["ada@example.org"].attributes == {"city": "London"}
    assert people["ch@example.org"].name == "Christiaan"
    assert people["ch@example.org"].attributes == {"city": "Den\nHaag"}
    assert (await platform.lists.get(platform.workspace, readers.id)).members == 2
    assert await platform.database.fetchval(COUNT_PARTS) == 0


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "cp1252"])
async def test_every_encoding_gives_the_same_names(platform: Importing, encoding: str) -> None:
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    rows = "email,name\n" + "".join(f"user{n}@example.org,Zoë Ñandú €{n}\n" for n in range(50))
    await platform.bring_in(mark + rows.encode(encoding))
    people = await platform.people()
    assert len(people) == 50
    assert people["user7@example.org"].name == "Zoë Ñandú €7"


async def test_bad_rows_are_rejected_by_line_and_reason_and_the_rest_goes_in(
    platform: Importing,
) -> None:
    done = await platform.bring_in(
        b"email,name\n"
        b"good@example.org,Good\n"
        b"no-at-sign,X\n"
        b"a@b.de,too,many\n"
        b"alone@example.org\n"
        b",nobody\n"
        b'"open@example.org","never closed\n'
        b"long@example.org," + b"n" * 300 + b"\n"
        b"nul@example.org,a\x00b\n"
        b"inject@example.org\rBcc: x@y.de,Y\n"
        b"\n"
        b"last@example.org,Last\n"
    )
    assert (done.state, done.rows_imported, done.rows_rejected) == ("finished", 2, 8)
    assert set(await platform.people()) == {"good@example.org", "last@example.org"}
    reasons = dict(await platform.reasons(done))
    assert reasons[3].endswith("has no @ after its first part")
    assert reasons[4] == "the row has 3 columns, the header 2"
    assert reasons[5] == "the row has 1 columns, the header 2"
    assert reasons[6] == "the address is missing"
    assert reasons[7] == "a quote is opened and never closed"
    assert reasons[8] == "the name is longer than 255 characters"
    assert reasons[9] == "the row contains a NUL byte"
    assert "carriage return" in reasons[10]


async def test_mixed_encodings_cost_only_the_foreign_rows(platform: Importing) -> None:
    rows = "".join(f"user{n}@example.org,Zoë\n" for n in range(20)).encode()
    foreign = "foreign@example.org,Zoë\n".encode("cp1252")
    done = await platform.bring_in(b"email,name\n" + rows + foreign)
    assert (done.rows_imported, done.rows_rejected) == (20, 1)
    assert await platform.reasons(done) == [
        (22, "the row contains bytes that are not text in the file's encoding")
    ]


async def test_a_line_of_megabytes_is_rejected_and_the_rest_goes_in(platform: Importing) -> None:
    done = await platform.bring_in(
        b"email,name\na@b.de,A\nx@y.de," + b"z" * (5 * PART_BYTES) + b"\nc@d.de,C\n"
    )
    assert (done.rows_imported, done.rows_rejected) == (2, 1)
    assert await platform.reasons(done) == [(3, "the line is longer than 1,048,576 characters")]
    assert set(await platform.people()) == {"a@b.de", "c@d.de"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"email,name\n", "the file has a header but no rows"),
        (b"first,last\nAda,Lovelace\n", "no column holds email addresses"),
        (bytes(range(256)) * 100, "looks binary"),
        (b"PK\x03\x04" + bytes(5000), "Excel"),
        (b"e" * (4 * PART_BYTES), "the header is longer"),
    ],
)
async def test_a_file_of_no_use_is_refused_at_once_with_the_reason(
    platform: Importing, data: bytes, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=reason):
        await platform.upload(data)
    (kept,) = await platform.imports.page(platform.workspace)
    assert kept.state == "failed"
    assert reason in kept.error
    assert await platform.database.fetchval(COUNT_PARTS) == 0


async def test_an_upload_that_breaks_off_is_failed(platform: Importing) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"email\na@b.de\n"
        raise ConnectionResetError("the client went away")

    with pytest.raises(ConnectionResetError):
        await platform.imports.upload(platform.workspace, "x.csv", chunks())
    (kept,) = await platform.imports.page(platform.workspace)
    assert (kept.state, kept.error) == ("failed", "the upload was broken off")


async def test_a_mapping_decides_what_columns_mean(platform: Importing) -> None:
    await platform.bring_in(
        b"login,email,note\nada@example.org,old@example.org,secret\n",
        mapping={"login": "address", "email": "former", "note": None},
    )
    people = await platform.people()
    assert people["ada@example.org"].attributes == {"former": "old@example.org"}


async def test_importing_a_file_again_changes_nothing(platform: Importing) -> None:
    readers = await platform.lists.create(platform.workspace, "readers")
    data = b"email,name,city\n" + b"".join(
        b"user%d@example.org,User %d,City %d\n" % (n % 30, n, n) for n in range(90)
    )
    first = await platform.bring_in(data, list_id=readers.id)
    before = await platform.snapshot()
    second = await platform.bring_in(data, list_id=readers.id)
    assert await platform.snapshot() == before
    assert len(before) == 30
    assert (first.rows_imported, second.rows_imported) == (90, 90)
    assert (await platform.people())["user3@example.org"].name == "User 63"


async def test_an_import_merges_over_what_is_known(platform: Importing) -> None:
    await platform.contacts.create(
        platform.workspace, "ada@example.org", "Ada", {"city": "London", "age": 36}
    )
    await platform.bring_in(b"email,name,city\nADA@example.org,,Ware\n")
    ada = (await platform.people())["ada@example.org"]
    assert (ada.name, ada.attributes) == ("Ada", {"city": "Ware", "age": 36})


async def test_a_take_over_goes_on_where_the_last_commit_was_and_counts_nothing_twice(
    platform: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_run, "PIECE_BYTES", 700)
    rows = [b"user%d@example.org,User %d\n" % (n, n) for n in range(400)]
    rows[100] = b"bad," + b"x" * 2000 + b"\n"
    rows[200] = b"bad\n"
    begun = await platform.upload(b"email,name\n" + b"".join(rows))
    job = await platform.lease()
    stopping = asyncio.Event()
    stopping.set()
    takeovers = 0
    while not await platform.runner.work(job, stopping):
        takeovers += 1
        await platform.engine.release([job])
        job = await platform.lease()
    done = await platform.imports.get(platform.workspace, begun.id)
    assert takeovers > 5
    assert (done.state, done.rows_imported, done.rows_rejected) == ("finished", 398, 2)
    assert [line for line, _ in await platform.reasons(done)] == [102, 202]
    assert len(await platform.people()) == 398


async def test_a_worker_that_slept_through_its_lease_writes_nothing_more(
    platform: Importing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_run, "PIECE_BYTES", 700)
    begun = await platform.upload(
        b"email\n" + b"".join(b"user%d@example.org\n" % n for n in range(300))
    )
    slow = await platform.lease()
    asleep, awake = asyncio.Event(), asyncio.Event()
    advance = platform.runner._advance

    async def sleeping(*arguments: object) -> None:
        if not awake.is_set():
            asleep.set()
            await awake.wait()
        await advance(*arguments)  # type: ignore[arg-type]

    sleeper = ImportRunner(
        database=platform.database,
        contacts=platform.contacts,
        live=platform.live,
        clock=SystemClock(),
    )
    monkeypatch.setattr(sleeper, "_advance", sleeping)
    sleeping_work = asyncio.create_task(sleeper.work(slow, asyncio.Event()))
    await asleep.wait()
    await platform.engine.release([slow])
    fast = await platform.lease()
    assert fast.token > slow.token
    quick_work = asyncio.create_task(platform.runner.work(fast, asyncio.Event()))
    await asyncio.sleep(0.05)
    awake.set()
    with pytest.raises(StaleLease):
        await sleeping_work
    assert await quick_work
    done = await platform.imports.get(platform.workspace, begun.id)
    assert (done.state, done.rows_imported) == ("finished", 300)


async def test_a_job_for_an_import_that_is_over_does_nothing(platform: Importing) -> None:
    begun = await platform.upload(b"email\na@b.de\n")
    job = await platform.lease()
    assert await platform.runner.work(job, asyncio.Event())
    assert await platform.runner.work(job, asyncio.Event())
    assert (await platform.imports.get(platform.workspace, begun.id)).rows_imported == 1


async def test_the_rejects_file_disarms_formulas(platform: Importing) -> None:
    done = await platform.bring_in(b'email\n"=cmd|/c calc"\n+1\n-1\n@x\n"\tx"\nplain\n')
    text = b"".join(
        [piece async for piece in platform.imports.rejects_csv(platform.workspace, done.id)]
    )
    rows = list(csv.reader(io.StringIO(text.decode(), newline="")))
    assert rows[0] == ["line", "reason", "row"]
    assert [row[2] for row in rows[1:]] == ["'=cmd|/c calc", "'+1", "'-1", "'@x", "'\tx", "plain"]


async def test_progress_is_told_live(platform: Importing) -> None:
    done = await platform.bring_in(b"email\na@b.de\nb\n")
    items: list[dict[str, object]] = []
    async with asyncio.timeout(60):
        while not items:  # visible once every older transaction of the whole server has ended
            events = await platform.live.read_after(START)
            items = [event.item for event in events if event.kind == IMPORT_PROGRESS]
            await asyncio.sleep(0.01)
    assert items[-1]["state"] == "finished"
    assert items[-1]["rows_imported"] == 1
    assert items[-1]["rows_rejected"] == 1
    assert items[-1]["read_bytes"] == items[-1]["size_bytes"] == done.size_bytes


async def test_another_workspace_sees_no_import_and_lends_no_list(platform: Importing) -> None:
    other = uuid7()
    await platform.database.execute(ADD_WORKSPACE, other)
    theirs = await platform.lists.create(other, "theirs")
    with pytest.raises(NotFound):
        await platform.upload(b"email\na@b.de\n", list_id=theirs.id)
    done = await platform.bring_in(b"email\nbad\n")
    assert await platform.imports.page(other) == []
    assert await platform.imports.rejects(other, done.id) == []
    with pytest.raises(NotFound):
        await platform.imports.get(other, done.id)
