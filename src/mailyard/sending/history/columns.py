"""Which column of a table of sent mail means what, and what its words for states mean here.

A meaning is a fact about one mail to one recipient. What a table calls it is recognised by its name
where that is one of the usual ones, or said by the caller.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mailyard.core.errors import InvalidInput
from mailyard.sending.states import State

# What stands for each meaning in tables that one meets. A table may have each once.
_USUAL = {
    "id": ("id", "email_id", "message_id", "mail_id", "log_id", "uuid"),
    "user": ("user", "user_id", "account", "account_id", "customer_id", "owner_id", "sender_id"),
    "type": ("type", "email_type", "mail_type", "category", "template", "template_name", "kind"),
    "recipient": ("recipient", "email", "to", "to_email", "to_address", "recipient_email",
                  "email_address", "address", "rcpt"),
    "state": ("state", "status", "delivery_status", "result"),
    "created_at": ("created_at", "created", "queued_at", "queued", "date", "timestamp", "time"),
    "sent_at": ("sent_at", "sent", "send_time", "date_sent", "processed_at"),
    "delivered_at": ("delivered_at", "delivered"),
    "bounced_at": ("bounced_at", "bounced"),
    "failed_at": ("failed_at", "failed"),
    "opened_at": ("opened_at", "opened", "first_opened_at"),
    "clicked_at": ("clicked_at", "clicked", "first_clicked_at"),
    "complained_at": ("complained_at", "complained", "spam_at"),
    "updated_at": ("updated_at", "updated", "modified_at", "completed_at"),
    "reply": ("reply", "response", "error", "error_message", "reason", "smtp_response"),
    "provider_id": ("provider_id", "provider_message_id", "ses_message_id", "external_id"),
}  # fmt: skip
MEANINGS = tuple(_USUAL)
TIMES = tuple(name for name in MEANINGS if name.endswith("_at"))
_BY_NAME = {name: meaning for meaning, names in _USUAL.items() for name in names}
_NOT_A_WORD = re.compile(r"[^a-z0-9]+")

# Only states in which nothing is left to do: what was waiting there will never leave from here.
_WORDS = {
    State.ACCEPTED: ("accepted", "sent", "success", "successful", "ok", "done", "complete",
                     "completed", "processed", "1"),
    State.DELIVERED: ("delivered", "delivery", "opened", "open", "clicked", "click", "read",
                      "complained", "complaint", "spam", "unsubscribed"),
    State.BOUNCED: ("bounced", "bounce", "hard_bounce", "soft_bounce", "rejected", "undelivered",
                    "undeliverable"),
    State.FAILED: ("failed", "failure", "error", "errored", "0"),
    State.SUPPRESSED: ("suppressed", "dropped", "blocked", "skipped", "blacklisted"),
    State.EXPIRED: ("expired", "timeout", "timed_out"),
    State.CANCELLED: ("cancelled", "canceled", "aborted", "withdrawn"),
    State.UNKNOWN: ("unknown", "queued", "pending", "processing", "sending", "scheduled",
                    "deferred", "delayed", "retrying", "new"),
}  # fmt: skip
_STATES = {word: state for state, words in _WORDS.items() for word in words}


@dataclass(frozen=True, slots=True)
class Columns:
    """Where each meaning stands in a row, counted from 0; what is not in the table is not here.
    `width`: how many columns a row has."""

    places: Mapping[str, int]
    width: int

    def __getitem__(self, meaning: str) -> int | None:
        return self.places.get(meaning)


def read_columns(names: Sequence[str], said: Mapping[str, str | None]) -> Columns:
    """The columns `names` as far as they mean something. `said`: meanings by column name, None for
    a column that is left out. Raises InvalidInput.
    """
    places: dict[str, int] = {}
    unknown = set(said) - set(names)
    if unknown:
        raise InvalidInput(
            f"there is no column {min(unknown)!r}; there are {', '.join(names)}", field="map"
        )
    meant = set(said.values())
    for place, name in enumerate(names):
        meaning = said[name] if name in said else _BY_NAME.get(_word(name))
        if meaning is None or (name not in said and (meaning in meant or meaning in places)):
            continue
        if meaning not in _USUAL:
            raise InvalidInput(f"{meaning!r} is none of {', '.join(MEANINGS)}", field="map")
        if meaning in places:
            raise InvalidInput(f"two columns mean {meaning}", field="map")
        places[meaning] = place
    for wanted in ("recipient", "state"):
        if wanted not in places:
            raise InvalidInput(
                f"no column means {wanted}; say which with --map COLUMN={wanted} (there are "
                f"{', '.join(names)})",
                field="map",
            )
    if not any(time in places for time in TIMES):
        raise InvalidInput(
            "no column is a time; say which with --map COLUMN=created_at", field="map"
        )
    return Columns(places, len(names))


def read_states(said: Mapping[str, str]) -> dict[str, State]:
    """The state of each word, `said` before the usual ones. Raises InvalidInput."""
    states = dict(_STATES)
    for word, name in said.items():
        if name not in _WORDS:
            raise InvalidInput(
                f"{name!r} is no state that mail of the past is in; those are "
                f"{', '.join(sorted(_WORDS))}",
                field="state",
            )
        states[_word(word)] = State(name)
    return states


def _word(text: str) -> str:
    return _NOT_A_WORD.sub("_", text.strip().lower()).strip("_")
