"""What is wrong with the TXT records of a sending domain, and what to write instead.

Each check takes the answers of DNS as values and returns one verdict.
"""

from mailyard.protocol.dns_answer import (
    Answer,
    NoName,
    NoRecords,
    Result,
    TemporaryFailure,
)
from mailyard.protocol.dns_dmarc import (
    DmarcAbsent,
    DmarcFound,
    DmarcUnknown,
    OrganisationalDomain,
    aligned,
    record_name,
)
from mailyard.protocol.dns_records import (
    DkimKey,
    Purpose,
    SendingSetup,
    State,
    Verdict,
    dkim_name,
    dmarc_text,
    doubled_name,
)
from mailyard.protocol.dns_spf import SpfReport
from mailyard.protocol.dns_spf_record import SpfRecord, merged

_SHOWN_PROBLEMS = 3


def check_dkim(
    key: DkimKey, domain: str, result: Result[str], doubled: Result[str] | None = None
) -> Verdict:
    """One selector. `result`: the TXT answer at `dkim_name`; `doubled`: that at its
    `doubled_name`, asked for when nothing was found."""
    name = dkim_name(key.selector, domain)

    def verdict(state: State, problem: str, write: str = key.text) -> Verdict:
        return Verdict(Purpose.DKIM, name, "TXT", state, problem, write, found=_found(result))

    if isinstance(result, TemporaryFailure):
        return verdict(State.UNKNOWN, f"DNS could not say: {result.trouble.value}", "")
    if isinstance(result, NoName | NoRecords):
        if isinstance(doubled, Answer):
            return verdict(State.WRONG, _doubled_text(name, domain))
        return verdict(State.MISSING, "there is no TXT record")
    keys = [text for text in result.records if "p" in _tags(text)]
    if not keys:
        return verdict(State.WRONG, "the TXT record there is no DKIM key: it has no p=")
    if len(keys) > 1:
        return verdict(
            State.WRONG, f"there are {len(keys)} DKIM keys under one selector; one may stand"
        )
    state, problem = _key_problem(key, keys[0])
    return verdict(state, problem, key.text if problem else "")


def check_spf(
    purpose: Purpose, terms: tuple[str, ...], report: SpfReport, *, required: bool
) -> Verdict:
    """The SPF record of a name, after `spf_walk`; `terms` must pass in it.

    Where SPF is not `required` (bounces come back under another name) what is wrong is a warning.
    """
    absent = [term for term in terms if not report.allows(term)]
    bad = State.WRONG if required else State.WARNING

    def verdict(state: State, problem: str, write: str = "", remove: bool = False) -> Verdict:
        return Verdict(
            purpose,
            report.domain,
            "TXT",
            state,
            problem,
            write,
            report.found if remove else (),
            report.found,
        )

    if report.domain in report.unknown:
        return verdict(State.UNKNOWN, "DNS could not say now")
    if not report.found:
        missing = State.MISSING if required else State.WARNING
        return verdict(missing, "there is no SPF record", merged((), terms))
    whole = merged(report.found, terms)
    if len(report.found) > 1:
        many = f"there are {len(report.found)} SPF records; receivers then use none"
        return verdict(bad, f"{many}. Write one in their place", whole, remove=True)
    if report.record is None or report.problems:
        problem = "; ".join(report.problems[:_SHOWN_PROBLEMS])
        return verdict(bad, problem, whole if report.record is None or absent else "")
    if report.record.all_qualifier == "+":
        return verdict(bad, "+all allows every server on earth to send as this domain", whole)
    if absent and report.unknown:
        return verdict(State.UNKNOWN, f"DNS could not say now what {report.unknown[0]} allows")
    if absent:
        return verdict(bad, f"it does not allow our servers: {' '.join(absent)} is missing", whole)
    return verdict(*_spf_warning(report, report.record, whole))


def check_dmarc(
    setup: SendingSetup, found: DmarcFound | DmarcAbsent | DmarcUnknown, texts: Result[str]
) -> Verdict:
    """The DMARC record that counts for the domain. `texts`: the answer at its own name."""

    def verdict(state: State, problem: str = "", write: str = "") -> Verdict:
        name = record_name(setup.domain)
        return Verdict(Purpose.DMARC, name, "TXT", state, problem, write, found=_found(texts))

    if isinstance(found, DmarcUnknown):
        return verdict(State.UNKNOWN, f"DNS could not say: {found.why}")
    if isinstance(found, DmarcAbsent):
        state = State.WRONG if found.why else State.MISSING
        return verdict(state, found.why or "there is no DMARC record", dmarc_text(setup))
    if found.policy == "none" and not found.record.reports_to:
        problem = "p=none without rua= asks nobody for anything: name an address for reports"
        return verdict(State.WARNING, problem, dmarc_text(setup) if setup.reports_to else "")
    if found.record.percent < 100 and found.policy != "none":
        problem = f"pct={found.record.percent}: the policy holds for a part of the mail only"
        return verdict(State.WARNING, problem)
    return verdict(State.GOOD)


def check_alignment(
    setup: SendingSetup,
    from_domain: str,
    found: DmarcFound | DmarcAbsent | DmarcUnknown,
    organisational: OrganisationalDomain,
) -> Verdict:
    """Whether mail from `from_domain`, signed for the setup's domain, passes DMARC by DKIM and by
    SPF. One of the two is enough (RFC 7489 section 3.1); both survive more."""
    strict_dkim = isinstance(found, DmarcFound) and found.record.dkim_strict
    strict_spf = isinstance(found, DmarcFound) and found.record.spf_strict
    by_dkim = aligned(setup.domain, from_domain, strict_dkim, organisational)
    path = setup.return_path or setup.domain
    by_spf = aligned(path, from_domain, strict_spf, organisational)
    name = record_name(from_domain)
    if by_dkim and by_spf:
        return Verdict(Purpose.ALIGNMENT, name, "TXT", State.GOOD)
    if by_dkim:
        why = "aspf=s asks for the very same name" if strict_spf else "they are other domains"
        problem = f"SPF is checked for {path}, which does not speak for {from_domain}: {why}"
        return Verdict(Purpose.ALIGNMENT, name, "TXT", State.WARNING, f"{problem}. DKIM does")
    if by_spf:
        problem = f"the signature of {setup.domain} does not speak for {from_domain} (adkim=s)"
        return Verdict(Purpose.ALIGNMENT, name, "TXT", State.WARNING, f"{problem}. SPF does")
    problem = f"neither the signature of {setup.domain} nor SPF of {path} speaks for {from_domain}"
    return Verdict(Purpose.ALIGNMENT, name, "TXT", State.WRONG, problem)


def _spf_warning(report: SpfReport, record: SpfRecord, whole: str) -> tuple[State, str, str]:
    ends = record.all_qualifier
    if record.redirect is None and ends is None:
        return State.WARNING, "it has no all at its end: forged mail passes as neutral", whole
    if ends == "?":
        write = whole.replace("?all", "~all")
        return State.WARNING, "?all says nothing about forged mail: write ~all or -all", write
    if report.unknown:
        return State.UNKNOWN, f"DNS could not say now what stands at {report.unknown[0]}", ""
    if report.warnings:
        return State.WARNING, "; ".join(report.warnings[:_SHOWN_PROBLEMS]), ""
    return State.GOOD, "", ""


def _key_problem(key: DkimKey, text: str) -> tuple[State, str]:
    """RFC 6376 section 3.6.1, tag by tag."""
    tags = _tags(text)
    if '"' in text or "\\" in text:
        return State.WRONG, "quotation marks or backslashes became part of the record"
    if tags.get("v", "DKIM1") != "DKIM1" or ("v" in tags and next(iter(tags)) != "v"):
        return State.WRONG, "v=DKIM1 must stand first, in this spelling"
    public = "".join(tags["p"].split())
    if not public:
        return State.WRONG, "p= is empty: the key is revoked"
    if public != key.key:
        if key.key.startswith(public):
            cut = f"the key is cut off after {len(public)} of {len(key.key)} characters"
            return State.WRONG, f"{cut}: enter it in strings of at most 255"
        return State.WRONG, "another key stands there"
    if tags.get("k", "rsa") != key.algorithm:
        return State.WRONG, f"k={tags.get('k', 'rsa')} where the key is {key.algorithm}"
    hashes = [one.strip() for one in tags.get("h", "sha256").split(":")]
    if "sha256" not in hashes:
        return State.WRONG, "h= does not allow sha256, with which mail is signed"
    services = [one.strip() for one in tags.get("s", "*").split(":")]
    if "*" not in services and "email" not in services:
        return State.WRONG, "s= does not allow the key for email"
    if "y" in [one.strip() for one in tags.get("t", "").split(":")]:
        return State.WARNING, "t=y says that DKIM is being tested: signatures may be ignored"
    return State.GOOD, ""


def _tags(text: str) -> dict[str, str]:
    """tag=value pairs in their order, the first of each (RFC 6376 section 3.2)."""
    tags: dict[str, str] = {}
    for part in text.strip().strip('"').split(";"):
        name, equals, value = part.partition("=")
        if equals:
            tags.setdefault(name.strip(), value.strip())
    return tags


def _doubled_text(name: str, domain: str) -> str:
    return (
        f"the record stands at {doubled_name(name, domain)}: the DNS host adds the domain by "
        f"itself, so enter only {name.removesuffix('.' + domain)} as its name"
    )


def _found(result: Result[str]) -> tuple[str, ...]:
    return result.records if isinstance(result, Answer) else ()
