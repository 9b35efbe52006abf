"""What ties a mail to others: its own Message-ID, those it names, or its subject.

Two mails are of one thread when a chain of ties leads from one to the other. Ties are taken from a
mail alone, and a set of mails has the same chains in whatever order they came: so threads are the
same under any order of arrival.

- By name (RFC 5322 section 3.6.4): a mail is tied to its own Message-ID and to every id in its
  References and In-Reply-To, whether these mails are here or not.
- By subject, where a mail that says it is an answer ("Re: …") names none, as some clients write it:
  it is tied to what the same correspondent began under that subject in the weeks before. Two mails
  that merely have the same subject and sender ("Your order") are never tied.

A tie is a number: 64 bits of a hash.
"""

import re
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from mailyard.protocol.mime.summary import Summary

# A spell of time, so long that an answer by subject is one spell or the next behind its question.
_SPELL_S = 45 * 86_400
_SUBJECT_CHARACTERS = 300
_ANSWERS = "re|aw|antw(?:ort)?|sv|vs|res|ref|rif|odp|ynt|回复|回覆|答复|返信"
_FORWARDS = "fwd?|wg|tr|rv|enc|vb|doorst|vl|i|转发|轉寄"
# RFC 5256 section 2.1 knows `re` and `fwd`; the others are what clients write in other languages.
_PREFIX = re.compile(
    rf"\s*(?:\[[^\]\[]{{1,40}}\]\s*)?(?:({_ANSWERS})|{_FORWARDS})(?:\[\d{{1,3}}\])?\s?[:：]",
    re.IGNORECASE,
)


class Strand(NamedTuple):
    """The ties of one mail. `subject`: of one that names and answers none, where it could be found
    by an answer; `answers`: of one that answers without a name, where it looks.
    """

    own: int | None
    named: tuple[int, ...] = ()
    subject: int | None = None
    answers: tuple[int, ...] = ()


def strand_of(summary: Summary, correspondent: str | None = None) -> Strand:
    """The ties of a mail. `correspondent`: whom it was written to, of one that was sent; of one
    that came, its sender.
    """
    own = _key(f"m{summary.message_id}") if summary.message_id else None
    parents = summary.references
    if summary.in_reply_to and summary.in_reply_to not in parents:
        parents = (*parents, summary.in_reply_to)
    if parents:
        return Strand(own, tuple([_key(f"m{one}") for one in dict.fromkeys(parents)]))
    base, is_answer = base_subject(summary.subject)
    if not base:
        return Strand(own)
    whose = (correspondent or summary.from_address).lower()
    spell = _spell(summary.sent_at)
    if is_answer:
        spells = (spell,) if spell is None else (spell, spell - 1)
        return Strand(own, answers=tuple([_key(f"s{one} {whose} {base}") for one in spells]))
    return Strand(own, subject=_key(f"s{spell} {whose} {base}"))


def base_subject(subject: str) -> tuple[str, bool]:
    """The subject without what answering and forwarding put before it, and whether it answers."""
    subject = subject[:_SUBJECT_CHARACTERS]
    at, is_answer = 0, False
    while (found := _PREFIX.match(subject, at)) is not None:
        is_answer = is_answer or found[1] is not None
        at = found.end()
    return " ".join(subject[at:].split()).casefold(), is_answer


def _spell(sent_at: datetime | None) -> int | None:
    return None if sent_at is None else int(sent_at.timestamp()) // _SPELL_S


@lru_cache(maxsize=1024)  # a thread's mails name the same ones
def _key(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
