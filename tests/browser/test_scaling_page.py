"""The page Scaling answers why one became four."""

from pathlib import Path
from typing import Any

from playwright.async_api import expect

from mailyard.fleet.autoscale.book import DecisionBook
from mailyard.fleet.autoscale.decide import ADVISE, UP, Decision
from mailyard.storage.cluster import url_of
from mailyard.storage.database import Database, DatabaseAddress

BEHIND = {
    "instances": 1, "least": 1, "most": 6, "room": 8, "connections_share": 0.23,
    "metrics": {"cpu": 0.93, "depth": 1399.0, "oldest_s": 11.346508, "memory": None},
    "lanes": [{"name": "inbound-email", "backlog": 1399.0, "oldest_s": 11.3465,
               "arrival_per_s": 115.834, "service_s": 0.030661, "slots": 2.0}],
    "hot_for_s": {"depth": 24.5}, "cold_for_s": {}, "panic_for_s": 19.5,
}  # fmt: skip
QUERY = {"query": "mailbox.list_lines", "share_of_a_second": 0.412, "mean_s": 0.1234}


async def test_a_decision_shows_what_it_was_made_from(visitor: Any) -> None:
    url = url_of(Path(visitor.platform.data))
    database = Database(DatabaseAddress(url, url, connections=2))
    await database.open()
    book = DecisionBook(database=database)
    why = "far behind: the work needs 4"
    await book.add("local", Decision("worker", UP, 1, 4, 4, why), BEHIND)
    advice = Decision("api", ADVISE, 2, 2, 1, "look at queries, not instances")
    inputs = {**BEHIND, "panic_for_s": None, "slowest_queries": [QUERY]}
    await book.add("local", advice, inputs)
    await database.close()

    page = await visitor.open()
    await page.goto("/scaling")
    row = page.get_by_role("row").filter(has_text=why)
    await expect(row.first).to_contain_text("1 became 4")
    await row.first.get_by_text("What it was made from").click()
    await expect(row.first).to_contain_text("inbound-email1161,39911.30.03072")
    await expect(row.first).to_contain_text("room for 8 more (23 % of its connections in use)")
    await expect(row.first).to_contain_text("depth 24.5 s")
    slow = page.get_by_role("row").filter(has_text="look at queries")
    await slow.first.get_by_text("What it was made from").click()
    await expect(slow.first).to_contain_text("mailbox.list_lines 123 ms each, 41.2 %")
    await visitor.shot(page, "scaling")
    await page.set_viewport_size({"width": 390, "height": 844})
    wide = await page.evaluate("document.documentElement.scrollWidth")
    await visitor.shot(page, "scaling-phone")
    assert wide <= 390
