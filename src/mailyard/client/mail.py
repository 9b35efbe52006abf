"""Mail as a test or an agent looks at it. Plain values: the same for both clients."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from mailyard.client.errors import ClientError

_NAMES = (
    *("id", "inbox_id", "recipient", "from_address", "from_name"),
    *("subject", "preview", "size_bytes"),
)


@dataclass(frozen=True, slots=True)
class File:
    """An attachment; `index` fetches it."""

    index: int
    file_name: str
    content_type: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class MailSummary:
    """A mail as its inbox lists it. What it says of its sender proves nothing."""

    id: str
    inbox_id: str
    recipient: str
    from_address: str
    from_name: str
    subject: str
    preview: str
    received_at: datetime
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Mail(MailSummary):
    """A mail, read.

    `html` is sanitised: nothing in it acts. `headers` are all of them, in order. `json` is the
    API's whole answer, for what has no name here.
    """

    text: str = ""
    html: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    files: tuple[File, ...] = ()
    json: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def codes(self) -> list[str]:
        """The one-time codes in it, the likeliest first."""
        return [str(one["value"]) for one in self._meaning("codes")]

    @property
    def code(self) -> str:
        """The one-time code. Raises ClientError when there is none."""
        return _first(self.codes, "one-time code", self)

    @property
    def links(self) -> list[str]:
        """The links that sign in, confirm or reset, the likeliest first."""
        return [str(one["url"]) for one in self._meaning("links")]

    @property
    def link(self) -> str:
        """The link that signs in, confirms or resets. Raises ClientError when there is none."""
        return _first(self.links, "link that signs in, confirms or resets", self)

    def header(self, name: str) -> str:
        """The first header of this name, in any case; empty without one."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), "")

    def _meaning(self, name: str) -> list[dict[str, Any]]:
        found = (self.json.get("meaning") or {}).get(name)
        return list(found) if found is not None else []


def summary_of(item: Mapping[str, Any]) -> MailSummary:
    """From a line of the API's list."""
    return MailSummary(**_line(item))


def mail_of(item: Mapping[str, Any]) -> Mail:
    """From a message, read, as the API gives it."""
    content = item["content"]
    return Mail(
        **_line(item),
        text=content["text"] or "",
        html=content["html"] or "",
        headers=tuple((header["name"], header["value"]) for header in content["headers"]),
        files=tuple(
            File(file["index"], file["file_name"], file["content_type"], file["size_bytes"])
            for file in content["files"]
        ),
        json=item,
    )


def moment(text: str) -> datetime:
    """RFC 3339 as a datetime."""
    return datetime.fromisoformat(text)


def _line(item: Mapping[str, Any]) -> dict[str, Any]:
    return {**{name: item[name] for name in _NAMES}, "received_at": moment(item["received_at"])}


def _first(found: list[str], what: str, mail: Mail) -> str:
    if not found:
        raise ClientError(
            f"there is no {what} in {mail.subject!r} from {mail.from_address}: {mail.text[:300]!r}"
        )
    return found[0]
