"""No query on a workspace's data without the workspace in it, or a reason why."""

import re
from importlib.resources import files

from mailyard.storage.queries import load, name_of

# Tables whose rows belong to one workspace.
TENANT_TABLES = frozenset(
    {
        "address",
        "api_key",
        "blob_gone",
        "audit_log",
        "cache_change",
        "cache_entry",
        "cache_result",
        "campaign",
        "campaign_chunk",
        "campaign_turn",
        "campaign_result",
        "contact",
        "contact_event",
        "contact_import",
        "contact_import_part",
        "contact_import_reject",
        "contact_list",
        "counter",
        "counter_delta",
        "delivery",
        "delivery_event",
        "demo_run",
        "dmarc_report",
        "dmarc_row",
        "dkim_key",
        "domain",
        "email",
        "held_message",
        "history_import",
        "idempotency_key",
        "inbox",
        "inbox_message",
        "inbound_route",
        "greylist",
        "mail_policy",
        "receiving_domain",
        "reserved_address",
        "list_member",
        "live_event",
        "membership",
        "message",
        "provider_hook",
        "imprint",
        "contact_topic",
        "sending_limits",
        "sending_use",
        "search_language",
        "search_line",
        "search_setting",
        "search_vector",
        "segment",
        "session",
        "suppression",
        "template",
        "template_version",
        "tls_report",
        "topic",
        "tracked_link",
        "tracking_domain",
        "tracking_event",
        "tracking_first",
        "verdict",
        "webhook",
        "webhook_attempt",
        "webhook_delivery",
        "webhook_replay",
        "webhook_secret",
        "invitation",
        "usage_day",
        "usage_notice",
    }
)

# What looks over all workspaces or finds one by a secret, and why that is right.
REASONS = {
    "access.end_other_sessions": "a person's own sessions, in all their workspaces",
    "access.forget_ways_in": "a person's own ways in, once they belong to no other workspace",
    "access.sweep_sessions": "what has run out, everywhere",
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


def tables_of(query: str) -> set[str]:
    """Tenant tables that a query reads or writes by name."""
    words = re.findall(
        r"\b(?:FROM|JOIN|INTO|UPDATE|USING)\s+([a-z_]+)\b", re.sub(r"--[^\n]*", "", query), re.I
    )
    return {word.lower() for word in words} & TENANT_TABLES


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
        if tables_of(query) and "workspace_id" not in query and name_of(query) not in REASONS
    }
    assert missing == {}


def test_every_reason_is_still_needed() -> None:
    names = {name_of(query): query for query in all_queries()}
    assert [name for name in REASONS if name not in names] == []
    assert [name for name in REASONS if "workspace_id" in names[name]] == []
