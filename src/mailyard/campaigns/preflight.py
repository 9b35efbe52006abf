"""What receivers ask of bulk mail, asked before it leaves: each item passes, warns or blocks.

Pure: facts in, items out. Who gathers the facts is `preflight_facts.py`. Each item names where its
rule comes from. Where mail reaches nobody but this installation's own inboxes nothing blocks: the
rules are those of strangers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum

from mailyard.protocol.dns_records import Purpose, State, Verdict

GOOGLE = "https://support.google.com/a/answer/81126"
YAHOO = "https://senders.yahooinc.com/best-practices/"
SES = "https://docs.aws.amazon.com/ses/latest/dg/reputationdashboardmessages.html"
ONE_CLICK = "https://www.rfc-editor.org/rfc/rfc8058"
DMARC = "https://www.rfc-editor.org/rfc/rfc9989"
ALTERNATIVES = "https://www.rfc-editor.org/rfc/rfc2046#section-5.1.4"
ROLES = "https://www.rfc-editor.org/rfc/rfc2142"
LISTS = "https://www.m3aawg.org/documents/en/m3aawg-sender-best-common-practices-version-30"
CLIPPING = "https://www.spamresource.com/2022/01/what-is-gmail-clipping-and-what-to-do.html"
POSTAL = "https://www.ftc.gov/business-guidance/resources/can-spam-act-compliance-guide-business"
OWN = "docs/PREFLIGHT.md"

BULK_RECIPIENTS = 5_000  # in a day to Gmail: from then on its rules for bulk senders hold (GOOGLE)
COMPLAINTS_WANTED = 0.001  # "below 0.1 %" (GOOGLE)
COMPLAINTS_MOST = 0.003  # "never 0.3 % or more" (GOOGLE, YAHOO)
BOUNCES_WANTED = 0.05  # review (SES)
BOUNCES_MOST = 0.10  # pause (SES)
MAILS_TO_JUDGE = 500  # of a rate: one complaint among fewer says little
RATE_DAYS = 30
CLIPPED_BYTES = 102 * 1024
LIST_STALE = timedelta(days=180)  # addresses that were given up are reused as traps (LISTS)
LIST_DEAD = timedelta(days=730)
CHECK_STALE = timedelta(days=7)  # of a domain's records
TRAPS_SHARE_MOST = 0.01
SILENT_SHARE_MOST = 0.5  # of those who have been there for LIST_STALE
_SHOWN = 5


class Level(Enum):
    """What an item does to a start."""

    PASS = "pass"
    WARN = "warn"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that was looked at. `source`: where the rule comes from."""

    key: str
    level: Level
    message: str
    source: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DomainFacts:
    """The From's domain. `verdicts` of its last check, `checked_ago` since then; `known`: it is one
    of the workspace's."""

    name: str
    known: bool
    signs: bool = False
    verdicts: tuple[Verdict, ...] = ()
    checked_ago: timedelta | None = None


@dataclass(frozen=True, slots=True)
class RateFacts:
    """Mail from this domain in the last RATE_DAYS: of all campaigns, and of the newest of single
    emails."""

    sent: int = 0
    bounced: int = 0
    complained: int = 0


@dataclass(frozen=True, slots=True)
class MailFacts:
    """The mail as some first contacts would get it. `failure`: why none could be written."""

    failure: str = ""
    unsubscribe: str = ""  # the List-Unsubscribe field's value
    one_click: bool = False  # List-Unsubscribe-Post beside an https address
    signed: frozenset[str] = frozenset()  # names that every signature covers, in lower case
    html_bytes: int = 0
    has_html: bool = False
    has_text: bool = False
    physical_address: str = ""
    shows_address: bool = False


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """The template's links that are the same for everybody.

    `broken` and `doubtful`: (address, why). `untried`: those over the bound, and those with
    variables in them. `foreign`: hosts that are none of the workspace's own. `hidden`: addresses
    that do not show where they lead: shorteners, bare IP addresses. `plain`: without TLS.
    """

    broken: tuple[tuple[str, str], ...] = ()
    doubtful: tuple[tuple[str, str], ...] = ()
    tried: int = 0
    untried: int = 0
    foreign: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lack:
    """A variable, or several together, that `contacts` of the list lack; `why` a mail to one of
    them (`example`) fails, empty when the template does without."""

    variable: str
    contacts: int
    example: str
    why: str


@dataclass(frozen=True, slots=True)
class ListFacts:
    """Who would get it. `whole`: everybody was looked at in time. `untried`: who is unlike all
    those on whom the template was tried."""

    members: int = 0
    whole: bool = True
    lacks: tuple[Lack, ...] = ()
    untried: int = 0
    traps: int = 0
    trap_examples: tuple[str, ...] = ()
    stale: int = 0  # added longer ago than LIST_STALE, and nothing was sent to the list since
    dead: int = 0  # likewise LIST_DEAD
    known_long: int = (
        0  # added longer ago than LIST_STALE; asked where opens or clicks are followed
    )
    silent: int = 0  # of those: who never opened or clicked anything


@dataclass(frozen=True, slots=True)
class CampaignFacts:
    """All that the rules ask. `outside`: mail leaves to other people's servers."""

    outside: bool
    domain: DomainFacts
    rates: RateFacts
    mail: MailFacts
    links: LinkFacts
    list: ListFacts


def judge_campaign(facts: CampaignFacts) -> tuple[Item, ...]:
    """The items of a campaign's preflight, in the order in which one would mend them."""
    bulk = facts.list.members >= BULK_RECIPIENTS
    items = [
        *_on_domain(facts.domain, bulk),
        *_on_unsubscribing(facts.mail, facts.domain),
        *_on_rates(facts.rates),
        *_on_mail(facts.mail),
        *_on_links(facts.links),
        *_on_list(facts.list),
    ]
    return _as_it_matters(items, facts.outside)


def judge_domain(domain: DomainFacts, rates: RateFacts, *, outside: bool) -> tuple[Item, ...]:
    """The items of a domain's preflight: as for a large campaign from it."""
    return _as_it_matters([*_on_domain(domain, True), *_on_rates(rates)], outside)


def blocking(items: Iterable[Item]) -> tuple[Item, ...]:
    """Those that a start has to be forced past."""
    return tuple(item for item in items if item.level is Level.BLOCK)


def _as_it_matters(items: Sequence[Item], outside: bool) -> tuple[Item, ...]:
    """Where no mail leaves the house only what fails by itself is worth a block."""
    if outside:
        return tuple(items)
    return tuple(
        replace(item, level=Level.WARN)
        if item.level is Level.BLOCK and item.key not in ("variables", "mail")
        else item
        for item in items
    )


def _on_domain(domain: DomainFacts, bulk: bool) -> Iterable[Item]:
    must = Level.BLOCK if bulk else Level.WARN
    if not domain.known:
        message = f"{domain.name} is no sending domain of this workspace: its mail is not signed"
        yield Item("authentication", Level.BLOCK, message, GOOGLE)
        return
    if not domain.signs:
        message = f"mail from {domain.name} is not signed: publish its DKIM records and check it"
        yield Item("authentication", Level.BLOCK, message, GOOGLE)
    else:
        yield Item("authentication", Level.PASS, f"mail from {domain.name} is signed", GOOGLE)
    if domain.checked_ago is None or domain.checked_ago > CHECK_STALE:
        days = CHECK_STALE.days
        message = f"the records of {domain.name} were not looked at for {days} days: check it"
        yield Item("records_age", Level.WARN, message, OWN)
    yield _worst(domain, "alignment", (Purpose.ALIGNMENT,), Level.BLOCK, DMARC)
    yield _worst(domain, "dmarc", (Purpose.DMARC,), must, GOOGLE)
    spf = (Purpose.SPF, Purpose.RETURN_PATH, Purpose.RETURN_PATH_SPF)
    yield _worst(domain, "spf", spf, must, GOOGLE)
    yield _worst(domain, "address_names", (Purpose.ADDRESS_NAME,), must, GOOGLE)
    yield _worst(domain, "tls", (Purpose.TLS,), Level.WARN, GOOGLE)


def _worst(
    domain: DomainFacts, key: str, purposes: Sequence[Purpose], when_bad: Level, source: str
) -> Item:
    """What the last check found of some records, as one item."""
    mine = [one for one in domain.verdicts if one.purpose in purposes]
    bad = [one for one in mine if one.state in (State.MISSING, State.WRONG)]
    doubtful = [one for one in mine if one.state in (State.WARNING, State.UNKNOWN)]
    shown = tuple(f"{one.name}: {one.problem}" for one in (*bad, *doubtful))[:_SHOWN]
    what = _ABOUT[key]
    if bad:
        return Item(key, when_bad, f"{what} is not right", source, shown)
    if doubtful:
        return Item(key, Level.WARN, f"{what} could be better", source, shown)
    if not mine and key not in ("address_names", "tls"):
        return Item(key, Level.WARN, f"{what} was never checked", source)
    return Item(key, Level.PASS, f"{what} is right" if mine else f"{what}: nothing to say", source)


_ABOUT = {
    "alignment": "that signature or SPF speak for the sender (DMARC alignment)",
    "dmarc": "the DMARC record",
    "spf": "SPF and the return-path",
    "address_names": "the name (PTR) of the addresses that we send from",
    "tls": "TLS of our mail server",
}


def _on_unsubscribing(mail: MailFacts, domain: DomainFacts) -> Iterable[Item]:
    if mail.failure:
        return
    if not mail.one_click:
        why = f" ({mail.unsubscribe} is no https address)" if mail.unsubscribe else ""
        message = f"the mail has no one-click unsubscribe{why}: set an https address, or " \
            "MAILYARD_BASE_URL to one"  # fmt: skip
        yield Item("one_click", Level.BLOCK, message, ONE_CLICK)
        return
    yield Item("one_click", Level.PASS, "people unsubscribe with one click", ONE_CLICK)
    missing = {"list-unsubscribe", "list-unsubscribe-post"} - mail.signed
    if missing:
        message = (
            f"no signature covers {' and '.join(sorted(missing))}: receivers then show no link"
        )
        yield Item("one_click_signed", Level.BLOCK, message, ONE_CLICK)
    else:
        message = f"{domain.name} signs the unsubscribe headers"
        yield Item("one_click_signed", Level.PASS, message, ONE_CLICK)


def _on_rates(rates: RateFacts) -> Iterable[Item]:
    yield _rate(
        "complaint_rate", "complained", rates.complained, rates.sent, COMPLAINTS_WANTED,
        COMPLAINTS_MOST, GOOGLE,
    )  # fmt: skip
    yield _rate(
        "bounce_rate", "bounced", rates.bounced, rates.sent, BOUNCES_WANTED, BOUNCES_MOST, SES
    )


def _rate(
    key: str, word: str, count: int, sent: int, wanted: float, most: float, source: str
) -> Item:
    """How `count` of `sent` stands against what is wanted and what is the most."""
    said = f"{count:,} of {sent:,} mails {word} in {RATE_DAYS} days"
    if sent < MAILS_TO_JUDGE:
        return Item(key, Level.PASS, f"{said}: too few to tell", source)
    share = count / sent
    said = f"{said}, {share:.2%}"
    if share >= most:
        return Item(key, Level.BLOCK, f"{said}: {most:.1%} is never to be reached", source)
    if share >= wanted:
        return Item(key, Level.WARN, f"{said}: stay below {wanted:.1%}", source)
    return Item(key, Level.PASS, said, source)


def _on_mail(mail: MailFacts) -> Iterable[Item]:
    if mail.failure:
        yield Item("mail", Level.BLOCK, f"the mail cannot be written: {mail.failure}", OWN)
        return
    size = f"{mail.html_bytes / 1024:.0f} KB of HTML"
    if mail.html_bytes > CLIPPED_BYTES:
        message = f"{size}: Gmail cuts it off after 102 KB, and the unsubscribe link with it"
        yield Item("size", Level.WARN, message, CLIPPING)
    else:
        yield Item("size", Level.PASS, size, CLIPPING)
    if mail.has_html and not mail.has_text:
        message = "there is no text part: readers without HTML, and filters, see nothing"
        yield Item("text_part", Level.WARN, message, ALTERNATIVES)
    else:
        yield Item("text_part", Level.PASS, "there is a text part", ALTERNATIVES)
    if not mail.physical_address:
        message = "no postal address of the sender is set for this workspace"
        yield Item("physical_address", Level.WARN, message, POSTAL)
    elif not mail.shows_address:
        message = "the sender's postal address is not in the mail: put {{ physical_address }} in"
        yield Item("physical_address", Level.WARN, message, POSTAL)
    else:
        message = "the sender's postal address is in the mail"
        yield Item("physical_address", Level.PASS, message, POSTAL)


def _on_links(links: LinkFacts) -> Iterable[Item]:
    def listed(found: Iterable[tuple[str, str]]) -> tuple[str, ...]:
        return tuple(f"{url}: {why}" for url, why in found)[:_SHOWN]

    if links.broken:
        count = len(links.broken)
        message = f"{count} links lead nowhere" if count > 1 else "a link leads nowhere"
        yield Item("links", Level.BLOCK, message, YAHOO, listed((*links.broken, *links.doubtful)))
    elif links.doubtful:
        message = f"{len(links.doubtful)} links did not answer well"
        yield Item("links", Level.WARN, message, YAHOO, listed(links.doubtful))
    else:
        rest = f", {links.untried} were not tried" if links.untried else ""
        yield Item("links", Level.PASS, f"{links.tried} links answer{rest}", YAHOO)
    doubts = (
        *(f"{one} hides where it leads" for one in links.hidden),
        *(f"{one} has no TLS" for one in links.plain),
    )
    if doubts:
        message = "some links look like those of spam"
        yield Item("link_hosts", Level.WARN, message, GOOGLE, doubts[:_SHOWN])
    elif links.foreign:
        message = "links lead to hosts that are none of this workspace's domains"
        yield Item("link_hosts", Level.WARN, message, GOOGLE, links.foreign[:_SHOWN])
    else:
        yield Item("link_hosts", Level.PASS, "links lead to the workspace's own domains", GOOGLE)


def _on_list(found: ListFacts) -> Iterable[Item]:
    if not found.whole:
        message = "the list is so large that not everybody was looked at in time"
        yield Item("list", Level.WARN, message, OWN)
    if not found.members and found.whole:
        yield Item("list", Level.WARN, "there is nobody in the list", OWN)
    failing = [lack for lack in found.lacks if lack.why]
    if failing:
        shown = tuple(
            f"{one.variable}: {one.contacts:,} contacts, such as {one.example}: {one.why}"
            for one in failing
        )[:_SHOWN]
        message = "some contacts lack what the template asks for: their mail fails"
        yield Item("variables", Level.BLOCK, message, OWN, shown)
    elif found.untried:
        message = f"{found.untried:,} contacts are unlike those on whom the template was tried: " \
            "it decides by too many different values"  # fmt: skip
        yield Item("variables", Level.WARN, message, OWN)
    else:
        rest = tuple(f"{one.variable}: {one.contacts:,} contacts do without" for one in found.lacks)
        message = "the template can be filled for everybody" if found.whole else "as far as seen"
        yield Item("variables", Level.PASS, message, OWN, rest[:_SHOWN])
    if found.dead:
        message = f"{found.dead:,} addresses are older than {LIST_DEAD.days // 365} years, and " \
            "nothing was sent to this list since"  # fmt: skip
        yield Item("list_age", Level.BLOCK, message, LISTS)
    elif found.stale:
        message = f"{found.stale:,} addresses are older than {LIST_STALE.days} days, and nothing " \
            "was sent to this list since: begin with those who came last"  # fmt: skip
        yield Item("list_age", Level.WARN, message, LISTS)
    else:
        yield Item("list_age", Level.PASS, "the list is in use", LISTS)
    if found.traps:
        share = found.traps / max(found.members, 1)
        level = Level.BLOCK if share > TRAPS_SHARE_MOST and found.traps > _SHOWN else Level.WARN
        message = f"{found.traps:,} addresses look like no person's: roles, typing errors, traps"
        yield Item("traps", level, message, ROLES, found.trap_examples[:_SHOWN])
    else:
        yield Item("traps", Level.PASS, "no address looks like a trap", ROLES)
    if found.known_long:
        share = found.silent / found.known_long
        level = Level.WARN if share > SILENT_SHARE_MOST else Level.PASS
        message = f"about {share:.0%} of those added more than {LIST_STALE.days} days ago never " \
            "opened or clicked a mail"  # fmt: skip
        yield Item("silent", level, message, LISTS)
