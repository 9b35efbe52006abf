"""What rules ask of a mail that no pattern says: functions from the mail. Each is linear in what it
reads, and that is bounded."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
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
_ZONE = re.compile(r"([+-]\d{4}|\b[A-Z]{1,5})\s{0,3}(\([^()]{0,40}\))?\s{0,3}$", re.I)
_DAY_S = 86_400.0
_MANY = 20
_LITTLE = 40  # characters
_FREEMAIL = frozenset(
    (
        "aol.com", "gmail.com", "gmx.com", "gmx.de", "gmx.net", "googlemail.com", "hotmail.com",
        "icloud.com", "live.com", "mail.com", "mail.ru", "outlook.com", "proton.me",
        "protonmail.com", "qq.com", "rediffmail.com", "web.de", "yahoo.co.jp", "yahoo.co.uk",
        "yahoo.com", "yandex.com", "yandex.ru", "ymail.com", "zohomail.com", "163.com", "126.com",
    )
)  # fmt: skip
_BRAND = re.compile(
    r"(paypal|amazon|microsoft|apple|netflix|facebook|instagram|whatsapp|linkedin|docusign|dropbox"
    r"|fedex|dhl|ups|usps|american express|wells fargo|chase|coinbase|binance)"
    r"( (support|security|service|team|billing|account|customer service|express|delivery))?$",
    re.I,
)
_ARCHIVE = re.compile(r"\.(zip|rar|7z|ace|cab)$", re.I | re.M)
_PASSWORD = re.compile(r"\bpass(word|code)?\b.{0,20}?[:=]|\bpassword is\b", re.I)
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


def date_without_zone(mail: Seen) -> bool:
    """RFC 5322 section 3.3: a date has its zone; programs that write many mails forget it."""
    date = mail.message.header("Date")
    return bool(date) and not _ZONE.search(date or "")


def date_to_come(mail: Seen) -> bool:
    """More than a day after whoever took it last says that it came."""
    date, received = mail.message.date, mail.message.header("Received") or ""
    try:
        came = parsedate_to_datetime(received.rpartition(";")[2].strip()[:100])
        return date is not None and (date - came).total_seconds() > _DAY_S
    except (ValueError, TypeError, OverflowError):  # no date, or one without its zone
        return False


def many_recipients(mail: Seen) -> bool:
    return len(mail.message.to) + len(mail.message.cc) >= _MANY and not from_a_list(mail)


def html_alone(mail: Seen) -> bool:
    return mail.message.html is not None and mail.message.text is None


def image_alone(mail: Seen) -> bool:
    """A page that shows pictures and says nothing that could be read."""
    return "<img" in mail.html.lower() and len(mail.text.strip()) < _LITTLE


def plain_in_base64(mail: Seen) -> bool:
    """A text in base64 that needs none: nobody reads it on its way, filters included."""
    root = mail.message.root
    leaf = next((one for one in root.children if one.content_type.value == "text/plain"), root)
    if leaf.encoding != "base64" or leaf.content_type.value != "text/plain":
        return False
    return mail.text.isascii() and bool(mail.text.strip())


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


def answers_to_freemail(mail: Seen) -> bool:
    """Answers go to an account that anybody gets, of a sender who seems to have a domain."""
    sender, answers = mail.message.from_[:1], mail.message.reply_to[:1]
    if not sender or not answers or from_a_list(mail):
        return False
    here, there = (one[0].address.rpartition("@")[2].lower() for one in (sender, answers))
    return there in _FREEMAIL and here != there


def name_of_a_brand(mail: Seen) -> bool:
    """The name that is shown is that of a company that phishers like, the address is not its."""
    for one in mail.message.from_[:1]:
        found = _BRAND.match(one.name.strip())
        if found is not None:
            brand = found[1].lower().replace(" ", "")
            return brand not in one.address.rpartition("@")[2].lower().replace("-", "")
    return False


def locked_archive(mail: Seen) -> bool:
    """An archive that nobody can look into, and its password in the text."""
    return _ARCHIVE.search(mail.files) is not None and _PASSWORD.search(mail.text) is not None


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
        date_without_zone,
        date_to_come,
        many_recipients,
        html_alone,
        image_alone,
        plain_in_base64,
        subject_shouts,
        subject_is_gappy,
        name_is_another_address,
        answers_go_elsewhere,
        answers_to_freemail,
        name_of_a_brand,
        locked_archive,
        link_shows_another_domain,
        broken_structure,
        text_shouts,
        many_exclamations,
        answers_a_mail,
        from_a_list,
    )
}
