"""Search over real mail: taken in, ingested, indexed by its job, found through the service."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from mail_platform import mail_platform
from search_world import World, mail

from mailyard.core.ids import lowest_at, uuid7
from mailyard.mailbox.search.fact import sizes, span
from mailyard.mailbox.search.search import BEST
from mailyard.mailbox.search.tokens import SearchError
from mailyard.queue.batch import Batch
from mailyard.queue.job import MEDIA
from mailyard.queue.settle import Settler
from mailyard.storage.database import Database


def with_file(name: str, content: str, kind: str = "text/plain") -> bytes:
    return (
        "From: files@example.org\r\nSubject: With a file\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
        "Content-Type: text/plain\r\n\r\nsee the file\r\n--b\r\n"
        f'Content-Type: {kind}\r\nContent-Disposition: attachment; filename="{name}"\r\n\r\n'
        f"{content}\r\n--b--\r\n"
    ).encode()


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    async with mail_platform(database) as platform:
        world = World(platform, database)
        await world.open()
        yield world


async def test_each_way_of_asking_finds_what_it_should(world: World) -> None:
    one, two, three, four = await world.fill(
        mail("The quarterly reports were running late. See you in Zürich.", subject="Q3 numbers"),
        mail(
            "Running shoes on sale, twice the size " + "x" * 3_000,
            subject="Sale: running",
            sender="Shop <offers@news.shop.example>",
            more="List-Id: Weekly offers <weekly.shop.example>\r\n",
        ),
        mail("Der Bericht ist da, die Zahlungen sind nicht bei uns.", subject="Bericht für Sie"),
        with_file("Rechnung-2026.csv", "Donaudampfschifffahrt\r\nkeyboard;12"),
    )
    expected: dict[str, set[UUID]] = {
        "report": {one},  # a stem
        "reports late": {one},
        '"quarterly reports"': {one},
        '"reports quarterly"': set(),
        "run": {one, two},
        "quart*": {one},
        "running*": {one, two},
        "running -shoes": {one},
        "running and not shoes": {one},
        "quarterly or shoes": {one, two},
        "(quarterly or shoes) sale": {two},
        "zurich": {one},
        "Zürich": {one},
        "zahlung": {three},
        "bericht": {three},
        "from:ann": {one, three},
        "from:ann@example.org": {one, three},
        "from:shop.example": {two},
        "from:off*": {two},
        "from:(shop or files)": {two, four},
        "-from:ann": {two, four},
        "to:team": {one, two, three},
        "subject:running": {two},
        "subject:bericht": {three},
        'subject:"sale running"': {two},
        "has:attachment": {four},
        "filename:rechnung": {four},
        "filename:csv": {four},
        "filename:Rechnung-2026.csv": {four},
        "filename:rech*": {four},
        "keyboard": {four},  # in the file
        "*dampfschiff*": {four},
        "*chnung": {four},
        "list:weekly": {two},
        "list:weekly.shop.example": {two},
        "larger:2k": {two},
        "smaller:2k": {one, three, four},
        "after:2020-01-01 before:2021-01-01": set(),
        "after:today running": {one, two},
        "before:today": set(),
        "before:2021 or shoes": {two},
        "ann@example.org": {one, three},
        "example.org": {one, three, four},
        "the": {one, two, four},  # in every English mail
        "nothing": set(),
    }
    wrong = {}
    for text, wanted in expected.items():
        for inbox in (None, "a"):
            found = await world.ids(text, inbox)
            if set(found) != wanted or found != sorted(found, reverse=True):
                wrong[text, inbox] = found
    names = {one: "one", two: "two", three: "three", four: "four"}
    assert {key: [names[one] for one in ids] for key, ids in wrong.items()} == {}
    assert await world.ids("running", "b") == []


async def test_scripts_without_word_breaks_are_found_by_any_piece(world: World) -> None:
    japanese, chinese, thai = await world.fill(
        mail("明日の東京都の会議について確認をお願いします。"),
        mail("请确认您的订单号码 A-1234567890", subject="订单确认"),
        mail("ขอบคุณสำหรับคำสั่งซื้อของคุณ"),
    )
    assert await world.ids("東京") == [japanese]
    assert await world.ids("東京都 会議") == [japanese]
    assert await world.ids("京") == [japanese]
    assert await world.ids("都東") == []
    assert await world.ids("订单") == [chinese]
    assert await world.ids("订单 1234567890") == [chinese]
    assert await world.ids("คำสั่งซื้อ") == [thai]
    found = await world.find("東京")
    assert "<mark>東京</mark>" in found.hits[0].snippet


async def test_snippets_are_html_with_nothing_of_the_sender_in_it(world: World) -> None:
    await world.fill(
        mail(
            "<script>alert('invoices')</script> this is for you, "
            "your \ue000invoices\ue001 & <b>more</b> " + "words " * 60,
            subject="<i>Invoice</i> & more",
        )
    )
    (hit,) = (await world.find("invoice")).hits
    assert "<mark>invoices</mark>" in hit.snippet
    assert hit.subject == "&lt;i&gt;<mark>Invoice</mark>&lt;/i&gt; &amp; more"
    bare = hit.snippet.replace("<mark>", "").replace("</mark>", "")
    assert "<" not in bare
    assert "&lt;/script&gt;" in bare


async def test_the_best_come_first_when_asked_for(world: World) -> None:
    once, often, subject = await world.fill(
        mail("an invoice among many other words that stand here and say much else"),
        mail("invoice invoice invoice and another invoice, invoices all of them here"),
        mail("about it", subject="invoice"),
    )
    found = await world.ids("invoice", sort=BEST)
    assert set(found) == {once, often, subject}
    assert found[-1] == once
    first = await world.find("invoice", sort=BEST, limit=2)
    rest = await world.find("invoice", sort=BEST, limit=2, cursor=first.next_cursor)
    assert [hit.summary.id for hit in (*first.hits, *rest.hits)] == found
    assert rest.next_cursor is None


async def test_pages_go_on_where_the_last_ended(world: World) -> None:
    ids = await world.fill(*(mail(f"page word{number}") for number in range(7)))
    found: list[UUID] = []
    cursor = None
    for _ in range(4):
        page = await world.find("page", limit=2, cursor=cursor)
        found += [hit.summary.id for hit in page.hits]
        cursor = page.next_cursor
    assert found == sorted(ids, reverse=True)
    assert cursor is None


async def test_what_is_deleted_expired_or_anothers_is_not_found(world: World) -> None:
    both = await world.deliver(mail("a shared secret"), "a", "b")
    only_b = await world.deliver(mail("a secret of b"), "b")
    await world.index()
    assert await world.ids("secret") == [only_b, both]
    stranger = uuid7()
    assert (await world.search.find(stranger, "secret")).hits == []
    await world.platform.messages.delete(world.workspace_id, [both], world.inboxes["b"].id)
    assert await world.ids("secret", "b") == [only_b]
    assert await world.ids("secret") == [only_b, both]
    await world.platform.inboxes.delete(world.workspace_id, [world.inboxes["b"].id])
    assert await world.ids("secret") == [both]


async def test_an_inbox_that_lives_longer_keeps_its_index(world: World) -> None:
    (only,) = [await world.deliver(mail("kept words"), "b")]
    await world.index()
    await world.platform.inboxes.extend(world.workspace_id, world.inboxes["b"].id, None)
    assert await world.ids("kept", "b") == [only]
    late = await world.deliver(mail("kept later"), "b")
    await world.platform.inboxes.extend(world.workspace_id, world.inboxes["b"].id, 3_600)
    await world.index()
    assert await world.ids("kept", "b") == [late, only]


async def test_indexing_again_changes_nothing_and_a_bad_job_stops_no_other(world: World) -> None:
    message_id = await world.deliver(mail("once"))
    jobs = list(await world.platform.engine.lease([MEDIA], 10, 0.0, "test"))
    settler = Settler(world.platform.engine)
    for _ in range(2):
        await world.indexer.handle(Batch(jobs, settler, asyncio.Event()))
    assert await world.ids("once") == [message_id]


async def test_where_many_match_what_is_asked_beyond_words_is_still_found(world: World) -> None:
    """Spans behind the first, which holds the newest 4,000 lines alone."""
    (old,) = await world.fill(
        mail("the needle and the haystack in one mail" + "!" * 2_000, subject="Needles")
    )
    await fill_directly(world, 5_000, "haystack filler of many lines")
    assert await world.ids('"needle and the haystack"', "a") == [old]
    assert await world.ids("larger:2k", "a") == [old]
    assert await world.ids("*filler* -many") == []
    assert await world.ids("*eedle* haystack") == [old]
    assert await world.ids("-filler") == [old]
    assert await world.ids('haystack -"filler of many"', "a") == [old]
    assert await world.ids("n* -filler") == [old]
    assert await world.ids("needle", sort=BEST) == [old]
    (best, *others) = await world.ids("haystack", sort=BEST, limit=3)
    assert len({best, *others}) == 3
    assert await world.ids("needle") == [old]
    assert await world.ids("haystack -filler", "a") == [old]
    page = await world.find("haystack", limit=50)
    assert len(page.hits) == 50
    assert page.next_cursor is not None


async def test_pages_meet_without_a_gap_across_spans(world: World) -> None:
    await fill_directly(world, 4_600, "a thing of which there is much")
    seen: list[UUID] = []
    cursor = None
    while True:
        page = await world.find("thing", limit=500, cursor=cursor, snippets=False)
        seen += [hit.summary.id for hit in page.hits]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 4_600
    assert seen == sorted(seen, reverse=True)


async def test_the_schema_and_the_search_make_the_same_keys(database: Database) -> None:
    ids = [
        uuid7(),
        UUID(int=0),
        UUID(int=(1 << 128) - 1),
        lowest_at(datetime(2031, 5, 6, tzinfo=UTC)),
    ]
    async with database.connection() as connection:
        for message_id in ids:
            for size_bytes in (0, 511, 512, 700_000, 2**31 - 1):
                keys = set(
                    await connection.fetchval("SELECT search_facts($1, $2)", message_id, size_bytes)
                )
                assert keys & set(sizes(larger=True, size_bytes=max(0, size_bytes - 1)))
                assert keys & set(sizes(larger=False, size_bytes=min(size_bytes + 1, 2**31 - 1)))
                if message_id.int >> 80 < 1 << 44:
                    after = UUID(int=message_id.int + 1)
                    lowest = UUID(int=max(0, message_id.int - (5_000 << 80)))
                    assert keys & set(span(lowest, after))
                    assert keys & set(span(UUID(int=0), after))


async def fill_directly(world: World, count: int, text: str) -> None:
    """Many mails at once, as ingest and the indexer would have left them."""
    inbox = world.inboxes["a"]
    async with world.database.connection() as connection:
        await connection.execute(
            """
            WITH made AS MATERIALIZED (
                SELECT uuidv7() AS id FROM generate_series(1, $4::integer)
            ), message AS (
                INSERT INTO message SELECT id, $1, 0, '', ARRAY[$3], ARRAY[$2::uuid], '', '', 100,
                    convert_to(E'Subject: filler\\r\\n\\r\\n' || $5, 'UTF8') FROM made
            ), line AS (
                INSERT INTO inbox_message (inbox_id, message_id, workspace_id, retention_days,
                    message_retention_days, recipient, from_address, from_name, subject, preview,
                    header_message_id, size_bytes, attachments)
                SELECT $2, id, $1, 0, 0, $3, '', '', 'filler', $5, '', 100, 0 FROM made
            )
            INSERT INTO search_line SELECT $2, id, 0, $1, 100, 'english',
                to_tsvector('english', $5) || array_to_tsvector(
                    ARRAY['c=english', 'i=' || $2, 'w=' || $1::uuid]), '' FROM made
            """,
            world.workspace_id,
            inbox.id,
            inbox.address,
            count,
            text,
        )


async def test_a_search_that_cannot_be_read_says_where(world: World) -> None:
    with pytest.raises(SearchError) as refused:
        await world.find("from:ann (late")
    assert refused.value.column == 15
    with pytest.raises(SearchError, match="column 6"):
        await world.find("from:*nn")


async def test_the_plan_is_shown_and_uses_the_index(world: World) -> None:
    await world.fill(mail("needle"))
    plan = await world.search.plan(world.workspace_id, "needle")
    assert "search_line" in plan


async def test_labels_folders_and_states_are_those_of_the_mailbox(world: World) -> None:
    read, unread = await world.fill(mail("the first letter"), mail("the second letter"))
    async with world.database.connection() as connection:
        for message_id, seen, labels in ((read, True, ["Work"]), (unread, False, [])):
            await connection.execute(
                "INSERT INTO line_state (inbox_id, message_id, retention_days, workspace_id,"
                " thread_id, folder, labels, seen) VALUES ($1, $2, 0, $3, $2, 'inbox', $4, $5)",
                world.inboxes["a"].id,
                message_id,
                world.workspace_id,
                labels,
                seen,
            )
    for text, wanted in (
        ("is:unread letter", [unread]),
        ("is:read", [read]),
        ("letter -is:read", [unread]),
        ("label:Work", [read]),
        ("label:Other", []),
        ("folder:Inbox letter", [unread, read]),
        ("label:Work or second", [unread, read]),
        ("is:starred", []),
    ):
        assert await world.ids(text) == wanted, text
