"""No query on a workspace's data without the workspace in it, or a reason why."""

import re
from importlib.resources import files

from mailyard.storage.queries import load, name_of

_TABLE = re.compile(r"^CREATE (?:UNLOGGED )?TABLE ([a-z_]+) \((.*?)^\)", re.M | re.S)
_COLUMN = re.compile(r"\bALTER TABLE ([a-z_]+)\s+ADD COLUMN workspace_id\b")
_PLACE = re.compile(
    r"\b(?:FROM|JOIN|INTO|UPDATE|USING)\s+"
    r"((?:(?:ONLY\s+)?[a-z_]+(?:\s+(?:AS\s+)?[a-z_]+)?\s*,\s*)*(?:ONLY\s+)?[a-z_]+)",
    re.I,
)


def tenant_tables() -> frozenset[str]:
    """Tables whose rows belong to one workspace, all of them: the schema says which."""
    found: set[str] = set()
    for file in files("mailyard.storage").joinpath("migrations").iterdir():
        if file.name.endswith(".sql"):
            text = file.read_text("utf-8")
            found |= {name for name, body in _TABLE.findall(text) if "workspace_id" in body}
            found |= set(_COLUMN.findall(text))
    return frozenset(found)


TENANT_TABLES = tenant_tables()

# What looks over all workspaces or finds one by a secret, and why that is right.
REASONS = {
    "access.end_other_sessions": "a person's own sessions, in all their workspaces",
    "access.forget_ways_in": "a person's own ways in, once they belong to no other workspace",
    "access.sweep_sessions": "what has run out, everywhere",
    "analysis.any_sealed": "whether anybody has a secret; no content",
    "analysis.seal_anew": "the master key is the operator's, for all workspaces",
    "analysis.sealed_otherwise": "the master key is the operator's, for all workspaces",
    "blob.gone_keys": "by keys, which begin with their workspace",
    "blob.waiting": "how many wait to go, everywhere; no content",
    "cache.clear_entries": "the operator empties the caches, everywhere",
    "cache.clear_results": "the operator empties the caches, everywhere",
    "cache.trim_results": "what is too much, everywhere",
    "domain.any_sealed": "whether anybody has a secret; no content",
    "domain.seal_anew": "the master key is the operator's, for all workspaces",
    "domain.sealed_otherwise": "the master key is the operator's, for all workspaces",
    "expiry.expired_addresses": "what has run out, everywhere",
    **dict.fromkeys(
        (
            "filter.in_list",
            "filter.in_list_one",
            "filter.did",
            "filter.did_one",
            "filter.did_often",
            "filter.did_often_one",
            "filter.takes_topic",
            "filter.takes_topic_one",
            "filter.asked_for_topic",
            "filter.asked_for_topic_one",
        ),
        "conditions on a contact that the statement around them takes from its workspace",
    ),
    "fold.drop_old_minutes": "what is too old, everywhere",
    "idempotency.sweep": "what has run out, everywhere",
    **dict.fromkeys(
        (
            "kafka.bury",
            "kafka.give_back",
            "kafka.rescue",
            "queue.bury",
            "queue.complete",
            "queue.enqueue_special",
            "queue.give_back",
            "queue.give_chances",
            "queue.lease",
            "queue.promote",
            "queue.rescue",
        ),
        "the queue serves all workspaces in turn; a line is a number to it, and no content",
    ),
    "mail_policy.sweep": "what is too old, everywhere",
    "returns.known_events": "of deliveries that the caller holds, whoever they are of",
    "live.newest": "a place in the stream, no content",
    "live.oldest": "a place in the stream, no content",
    "partitions.at_work_since": "since when there is work, everywhere; no content",
    "provider.any_sealed": "whether anybody has a secret; no content",
    "provider.seal_anew": "the master key is the operator's, for all workspaces",
    "provider.sealed_otherwise": "the master key is the operator's, for all workspaces",
    "provider_hook.seal_anew": "the master key is the operator's, for all workspaces",
    "provider_hook.sealed_otherwise": "the master key is the operator's, for all workspaces",
    "region.homes_of": "whether mail for an address is another region's; no content",
    "reports.sweep_dmarc": "what is too old, everywhere",
    "reports.sweep_tls": "what is too old, everywhere",
    "shard.move_of": "the mover's own move, by its id; times and a count",
    "shard.counts": "the directory: how many are where; no content",
    "thread.find_ties": "by the ids of inboxes whose rows the caller holds",
    "timing.sweep_turns": "what is over, everywhere",
    "webhook.anybody": "whether there is any; no content",
    "webhook.seal_anew": "the master key is the operator's, for all workspaces",
    "webhook.sealed_otherwise": "the master key is the operator's, for all workspaces",
    "webhook.sweep_secrets": "what has run out, everywhere",
    "account.find_person": "whether a person belongs anywhere; people stand above workspaces",
    "account.sweep_links": "what has run out, everywhere",
    "usage.active_inboxes": "the operator's figures; a count, no content",
    "usage.amounts_by_day": "the operator's figures; sums, no content",
    "usage.forget_notices": "what is over, everywhere",
    "receiving.find_stored": "the accepting process asks about ids that it has made itself",
}


def bare(query: str) -> str:
    """The statement without its comments: what they say of a workspace filters nothing."""
    return re.sub(r"--[^\n]*", "", query)


def tables_of(query: str) -> set[str]:
    """Tenant tables that a query reads or writes by name, those behind a comma too."""
    places = ",".join(_PLACE.findall(bare(query)))
    return {word.lower() for word in re.findall(r"[a-z_]+", places, re.I)} & TENANT_TABLES


def all_queries() -> list[str]:
    areas = sorted(
        file.name.removesuffix(".sql")
        for file in files("mailyard.storage").joinpath("sql").iterdir()
        if file.name.endswith(".sql")
    )
    return [query for area in areas for query in load(area)]


def test_every_query_on_tenant_data_has_its_workspace_or_a_reason() -> None:
    missing = {
        name_of(query): sorted(tables_of(query))
        for query in all_queries()
        if tables_of(query) and "workspace_id" not in bare(query) and name_of(query) not in REASONS
    }
    assert missing == {}


def test_every_reason_is_still_needed() -> None:
    names = {name_of(query): query for query in all_queries()}
    assert [name for name in REASONS if name not in names] == []
    assert [name for name in REASONS if "workspace_id" in bare(names[name])] == []
    assert [name for name in REASONS if not tables_of(names[name])] == []


def test_the_tables_are_those_of_the_schema() -> None:
    """One that the reading above would pass over would be looked at by nobody."""
    assert {
        "message",
        "delivery",
        "cache_entry",
        "line_state",
        "provider",
        "shard_place",
    } < TENANT_TABLES
    assert tables_of("SELECT 1 FROM a AS b, message m -- FROM delivery") == {"message"}
