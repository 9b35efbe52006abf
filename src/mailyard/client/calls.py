"""What the API is asked, and what its answers become: one description for both clients.

A client sends an `Ask` and returns what `read` makes of the answer. Waiting is a small machine over
several asks: the server waits up to two minutes at a time, a test as long as it likes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import urandom
from typing import Any, Generic, TypeVar

from mailyard.client.errors import NoAnswer, NoMail, Refused
from mailyard.client.mail import Mail, MailSummary, mail_of, summary_of
from mailyard.client.wire import Answer

T = TypeVar("T")
Item = Mapping[str, Any]  # a thing of the API, as it gives it

ANSWER_S = 30.0  # how long an answer may take that waits for nothing
WAIT_S = 60.0  # how long a test waits for a mail when it does not say
SERVER_WAIT_S = 100.0  # in one request; the API allows 120
PAGE_ITEMS = 100
TRIES = 4
_AGAIN_S = 0.5
_AGAIN_MOST_S = 10.0
_LATER = (429, 503)


@dataclass(frozen=True, slots=True)
class Ask(Generic[T]):
    """One call: what is sent, and how its answer is read.

    A POST carries an idempotency key, so that sending it again does nothing twice.
    """

    method: str
    path: str
    read: Callable[[Answer], T]
    query: Mapping[str, object] = field(default_factory=dict)
    body: object = None
    timeout_s: float = ANSWER_S
    idempotency_key: str = ""

    def take(self, answer: Answer) -> T:
        """What the answer says. Raises Refused, NoAnswer.

        To delete what is gone already is no failure: an earlier try may have done it.
        """
        if not (self.method == "DELETE" and answer.status == 404):
            answer.check()
        return self.read(answer)


def again_in_s(failure: Exception, tries: int) -> float | None:
    """Seconds until an ask that failed `tries` times is sent again; None: not any more."""
    if tries >= TRIES:
        return None
    if isinstance(failure, Refused) and failure.status in _LATER:
        wait = failure.retry_after_s if failure.retry_after_s is not None else _AGAIN_S
        return wait if wait <= _AGAIN_MOST_S else None
    return _AGAIN_S * 2 ** (tries - 1) if isinstance(failure, NoAnswer) else None


def get(path: str, read: Callable[[Any], T], **query: object) -> Ask[T]:
    """A GET whose answer is JSON."""
    return Ask("GET", path, lambda answer: read(answer.json), query)


def post(path: str, body: object, read: Callable[[Any], T]) -> Ask[T]:
    """A POST that is done once, however often it is sent."""
    key = urandom(16).hex()
    return Ask("POST", path, lambda answer: read(answer.json), body=body, idempotency_key=key)


def fetch(path: str) -> Ask[bytes]:
    """Bytes as they are."""
    return Ask("GET", path, lambda answer: answer.body)


def delete(path: str) -> Ask[None]:
    """A DELETE."""
    return Ask("DELETE", path, lambda _: None)


# ---------------------------------------------------------------------------------------------


def create_inbox(
    address: str | None, ttl_s: float | None, name: str, labels: Sequence[str]
) -> Ask[Item]:
    body = {"address": address, "ttl_s": ttl_s, "name": name, "labels": list(labels)}
    return post("/v1/inboxes", {k: v for k, v in body.items() if v is not None}, dict)


def find_inbox(id_or_address: str) -> Ask[Item]:
    """An inbox by its id or its address. Reading raises Refused (404) for an unknown address."""
    if "@" not in id_or_address:
        return get(f"/v1/inboxes/{id_or_address}", dict)

    def only(page: Any) -> Item:
        if not page["items"]:
            raise Refused(404, "not_found", f"there is no inbox {id_or_address}")
        return dict(page["items"][0])

    return get("/v1/inboxes", only, address=id_or_address)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; `cursor` asks for the next one, None on the last."""

    items: list[T]
    cursor: str | None


def _page(item: Callable[[Any], T]) -> Callable[[Any], Page[T]]:
    return lambda page: Page([item(one) for one in page["items"]], page["next_cursor"])


def list_inboxes(label: str, cursor: str | None) -> Ask[Page[Item]]:
    return get("/v1/inboxes", _page(dict), label=label, cursor=cursor, limit=PAGE_ITEMS)


def list_mail(
    inbox_id: str, from_: str, subject: str, cursor: str | None
) -> Ask[Page[MailSummary]]:
    query = {"from": from_, "subject": subject, "cursor": cursor, "limit": PAGE_ITEMS}
    return get(f"/v1/inboxes/{inbox_id}/messages", _page(summary_of), **query)


def search(query: str, inbox_id: str, limit: int) -> Ask[Page[MailSummary]]:
    return get(
        "/v1/search", _page(summary_of), q=query, inbox_id=inbox_id, limit=min(limit, PAGE_ITEMS)
    )


def read_mail(message_id: str) -> Ask[Mail]:
    return get(f"/v1/messages/{message_id}", mail_of)


def send(
    sender: str,
    to: str | Sequence[str],
    subject: str,
    text: str | None,
    html: str | None,
    headers: Mapping[str, str],
) -> Ask[str]:
    """Reads the email's id."""
    body: dict[str, Any] = {
        "from": sender,
        "to": [to] if isinstance(to, str) else list(to),
        "subject": subject,
        "headers": dict(headers),
    }
    body |= {name: part for name, part in (("text", text), ("html", html)) if part is not None}
    return post("/v1/emails", body, lambda answer: str(answer["id"]))


def reply(mail: Mail, text: str | None, html: str | None) -> Ask[str]:
    """An answer to whoever the mail says it is from, in its thread (RFC 5322 section 3.6.4)."""
    own = mail.header("message-id")
    before = mail.header("references") or mail.header("in-reply-to")
    threads = {"In-Reply-To": own, "References": f"{before} {own}".strip()} if own else {}
    subject = mail.subject if mail.subject.lower().startswith("re:") else f"Re: {mail.subject}"
    to = mail.header("reply-to") or mail.from_address
    return send(mail.recipient, to, subject, text, html, threads)


# ---------------------------------------------------------------------------------------------


class Given:
    """What an inbox has given to its user: each mail once, so that a second code is the second."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.last: dict[tuple[str, str], str] = {}  # by (from, subject)


class Waiting:
    """A wait for one mail: `ask` until `heard` has it. Times are monotonic seconds."""

    def __init__(
        self,
        *,
        inbox_id: str,
        address: str,
        from_: str,
        subject: str,
        timeout_s: float,
        given: Given,
        now: float,
        after: str = "",
    ) -> None:
        self._inbox_id = inbox_id
        self._address = address
        self._from = from_
        self._subject = subject
        self._timeout_s = timeout_s
        self._given = given
        self._until = now + timeout_s
        self._asked = False
        if after:
            given.last[from_, subject] = after

    def ask(self, now: float) -> Ask[Mail | None] | None:
        """The next request, which the server may take its time for; None when time is up."""
        left = max(0.0, self._until - now)
        if self._asked and left <= 0.0:
            return None
        self._asked = True
        wait_s = min(left, SERVER_WAIT_S)
        return Ask(
            "GET",
            f"/v1/inboxes/{self._inbox_id}/wait",
            lambda answer: mail_of(answer.json) if answer.body else None,
            {
                "from": self._from,
                "subject": self._subject,
                "timeout_s": f"{wait_s:.3f}",
                "after": self._given.last.get((self._from, self._subject)),
            },
            timeout_s=wait_s + ANSWER_S,
        )

    def heard(self, mail: Mail | None) -> Mail | None:
        """The mail, unless it was given before: then the wait goes on behind it."""
        if mail is None:
            return None
        self._given.last[self._from, self._subject] = mail.id
        if mail.id in self._given.ids:
            self._asked = False  # what lies behind it already is found without waiting
            return None
        self._given.ids.add(mail.id)
        return mail

    def missed(self, there: Sequence[MailSummary]) -> NoMail:
        """The error when time is up, given what lies in the inbox."""
        wanted = [f"{self._subject!r} in its subject"] if self._subject else []
        wanted += [f"{self._from!r} in its sender"] if self._from else []
        what = f"mail with {' and '.join(wanted)}" if wanted else "mail"
        others = [
            f"{one.subject!r} from {one.from_address}"
            + (" (given before)" if one.id in self._given.ids else "")
            for one in there[:10]
        ]
        came = f"there: {'; '.join(others)}" if others else "the inbox is empty"
        return NoMail(f"no {what} came to {self._address} within {self._timeout_s:g} s; {came}")
