"""The demonstration's platform over its public API, as any client sees it."""

from collections.abc import Sequence

import msgspec

from mailyard.proving.client import ApiClient, ApiProblem
from mailyard.proving.demonstration import (
    INBOX_TTL_S,
    LABEL,
    CampaignState,
    Csv,
    ImportState,
    Received,
)
from mailyard.proving.patient import PatientClient
from mailyard.queue.job import INBOUND_EMAIL

SENDER = "Mailyard Demo <demo@mailyard.example>"


class _Content(msgspec.Struct):
    """Of a message's content only what is compared is decoded."""

    text: str | None
    html_source: str | None


class _Message(msgspec.Struct):
    inbox_id: str
    subject: str
    content: _Content


class _Messages(msgspec.Struct):
    items: list[_Message]


class HttpPlatform:
    """Speaks to the API through `client`, patiently: parts of it may be killed meanwhile."""

    def __init__(self, client: ApiClient) -> None:
        self._client = PatientClient(client)

    async def make_inboxes(self, local_parts: Sequence[str], label: str) -> list[tuple[str, str]]:
        body = {
            "inboxes": [
                {"address": local_part, "ttl_s": INBOX_TTL_S, "labels": [LABEL, label]}
                for local_part in local_parts
            ]
        }
        made = await self._client.change("/v1/inboxes/batch", body)
        return [(inbox["id"], inbox["address"]) for inbox in made["items"]]

    async def make_list(self, name: str) -> str:
        return str((await self._client.change("/v1/lists", {"name": name}))["id"])

    async def begin_import(self, list_id: str, file_name: str, csv: Csv) -> str:
        begun = await self._client.upload(
            "/v1/imports", csv, "text/csv", list_id=list_id, file_name=file_name
        )
        return str(begun["id"])

    async def import_state(self, import_id: str) -> ImportState:
        one = await self._client.get(f"/v1/imports/{import_id}")
        return ImportState(
            state=one["state"],
            read_bytes=one["read_bytes"],
            size_bytes=one["size_bytes"],
            imported=one["rows_imported"],
            rejected=one["rows_rejected"],
            error=one["error"],
        )

    async def make_template(self, name: str, subject: str, html: str, text: str) -> str:
        body = {"name": name, "subject": subject, "html": html, "text": text}
        return str((await self._client.change("/v1/templates", body))["id"])

    async def begin_campaign(self, name: str, list_id: str, template_id: str) -> str:
        body = {
            "name": name,
            "list": list_id,
            "template": template_id,
            "from": SENDER,
            "type": "demo",
        }
        campaign_id = str((await self._client.change("/v1/campaigns", body))["id"])
        await self._client.change(f"/v1/campaigns/{campaign_id}/start")
        return campaign_id

    async def campaign_state(self, campaign_id: str) -> CampaignState:
        now = await self._client.get(f"/v1/campaigns/{campaign_id}/progress")
        return CampaignState(
            state=now["state"],
            accepted=now["counts"]["accepted"],
            unknown=now["counts"]["unknown"],
            settled=now["recipients"] - now["waiting"],
        )

    async def inbound_waiting(self) -> int:
        try:
            queues = await self._client.get("/v1/queues")
        except ApiProblem as problem:
            if problem.status == 403:
                return 0  # not the operator's key: the second look at inboxes has to do
            raise
        return sum(
            int(queue["ready"] + queue["leased"])
            for queue in queues["items"]
            if queue["queue"] == INBOUND_EMAIL
        )

    async def read_inboxes(self, inbox_ids: Sequence[str]) -> list[Received]:
        found = await self._client.ask(
            "/v1/inboxes/read",
            {"inbox_ids": list(inbox_ids), "each": 10, "headers": False},
            answer=_Messages,
        )
        return [
            Received(
                message.inbox_id,
                message.subject,
                message.content.text,
                message.content.html_source,
            )
            for message in found.items
        ]

    async def count_mail(self, label: str) -> int:
        return int((await self._client.get("/v1/messages/count", label=label))["messages"])
