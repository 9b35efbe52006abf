"""What rules ask of a mail that no pattern says: functions from the mail. Each is linear in what it
reads, and that is bounded."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from mailyard.protocol.mime.message import Message
from mailyard.protocol.mime.text import text_of

CHARACTERS = 50_000
_LINKS = 500
_HREF = re.compile(r"""<a\b[^>]{0,1000}?\bhref\s{0,5}=\s{0,5}["']?([^"'\s>]{1,2000})""", re.I)
_ANCHOR = re.compile(
    r"""<a\b[^>]{0,1000}?\bhref\s{0,5}=\s{0,5}["']?(https?://[^"'\s>]{1,2000})[^>]{0,500}>([^<]{1,300})<""",
    re.I,
)
_PLAIN_LINK = re.compile(r"https?://[^\s<>\"']{1,2000}", re.I)
_HOST = re.compile(r"(?:https?://)?(?:[^/@\s]{0,200}@)?([a-z0-9.-]{1,253}\.[a-z]{2,24})\b", re.I)
_ADDRESS = re.compile(r"[\w.+-]{1,64}@([\w-]{1,63}(?:\.[\w-]{1,63}){1,8})")
_GAPPY = re.compile(r"(?:\b\w[ ._*-]){4,}\w\b")


@dataclass(frozen=True)
class Seen:
    """A mail as rules see it."""

    message: Message

    @cached_property
    def subject(self) -> str:
        return self.message.subject[:1_000]

    @cached_property
    def from_(self) -> str:
        return ", ".join(f"{one.name} <{one.address}>" for one in self.message.from_[:5])

    @cached_property
    def html(self) -> str:
        return (self.message.html or "")[: 2 * CHARACTERS]

    @cached_property
    def text(self) -> str:
        return text_of(self.message).text[:CHARACTERS]

    @cached_property
    def links(self) -> str:
        found = [match[1] for match in _HREF.finditer(self.html)][:_LINKS]
        found += [match[0] for match in _PLAIN_LINK.finditer(self.text)][:_LINKS]
        return "\n".join(dict.fromkeys(found))

    @cached_property
    def files(self) -> str:
        return "\n".join(one.filename for one in self.message.attachments[:100])


def no_message_id(mail: Seen) -> bool:
    return not mail.message.message_id


def no_date(mail: Seen) -> bool:
    return mail.message.date is None


def no_from(mail: Seen) -> bool:
    return not mail.message.from_


def nobody_named(mail: Seen) -> bool:
    return not mail.message.to and not mail.message.cc


def subject_shouts(mail: Seen) -> bool:
    letters = [one for one in mail.subject if one.isalpha()]
    return len(letters) >= 10 and sum(one.isupper() for one in letters) > 0.8 * len(letters)


def subject_is_gappy(mail: Seen) -> bool:
    return _GAPPY.search(mail.subject) is not None


def name_is_another_address(mail: Seen) -> bool:
    """The name that is shown is the address of somebody else."""
    for one in mail.message.from_[:1]:
        shown = _ADDRESS.search(one.name)
        if shown is not None:
            return not _related(shown[1], one.address.rpartition("@")[2])
    return False


def answers_go_elsewhere(mail: Seen) -> bool:
    sender, answers = mail.message.from_[:1], mail.message.reply_to[:1]
    if not sender or not answers or from_a_list(mail):
        return False
    domains = (sender[0].address.rpartition("@")[2], answers[0].address.rpartition("@")[2])
    return bool(domains[1]) and not _related(*domains)


def link_shows_another_domain(mail: Seen) -> bool:
    """A link whose text is the address of one host and which leads to another."""
    for count, match in enumerate(_ANCHOR.finditer(mail.html)):
        if count >= _LINKS:
            break
        leads, shows = _HOST.match(match[1]), _HOST.fullmatch(match[2].strip().split("/")[0])
        shows = shows or _HOST.match(match[2].strip()) if "//" in match[2] else shows
        if leads and shows and not _related(leads[1], shows[1]):
            return True
    return False


def broken_structure(mail: Seen) -> bool:
    return bool(mail.message.defects)


def text_shouts(mail: Seen) -> bool:
    letters = [one for one in mail.text[:5_000] if one.isalpha()]
    return len(letters) >= 100 and sum(one.isupper() for one in letters) > 0.4 * len(letters)


def many_exclamations(mail: Seen) -> bool:
    return mail.text[:5_000].count("!") >= 6 or "!!" in mail.subject


def answers_a_mail(mail: Seen) -> bool:
    return bool(mail.message.in_reply_to) and bool(mail.message.references)


def from_a_list(mail: Seen) -> bool:
    return mail.message.header("List-Id") is not None


def _related(one: str, other: str) -> bool:
    """Whether two hosts are the same or under one domain (by their last two labels)."""
    return one.lower().split(".")[-2:] == other.lower().split(".")[-2:]


FEATURES: dict[str, Callable[[Seen], bool]] = {
    feature.__name__: feature
    for feature in (
        no_message_id,
        no_date,
        no_from,
        nobody_named,
        subject_shouts,
        subject_is_gappy,
        name_is_another_address,
        answers_go_elsewhere,
        link_shows_another_domain,
        broken_structure,
        text_shouts,
        many_exclamations,
        answers_a_mail,
        from_a_list,
    )
}
