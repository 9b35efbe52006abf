"""The whole check of a sending domain, and of the addresses that we send from: what to ask, what
it means.

No DNS here: a check is a generator that yields the questions of its next round, which can be asked
at once, and is sent their results.

    check = check_domain(setup, organisational)
    questions = next(check)
    try:
        while True:
            questions = check.send({one: result of one for one in questions})
    except StopIteration as end:
        verdicts = end.value
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeAlias

from mailyard.protocol.dns_answer import (
    Address,
    Answer,
    Ask,
    NoName,
    NoRecords,
    Question,
    Result,
)
from mailyard.protocol.dns_check_hosts import check_address_name, check_alias, check_mx
from mailyard.protocol.dns_check_texts import check_alignment, check_dkim, check_dmarc, check_spf
from mailyard.protocol.dns_dmarc import OrganisationalDomain, dmarc_of, record_name
from mailyard.protocol.dns_records import (
    Purpose,
    SendingSetup,
    Verdict,
    dkim_name,
    doubled_name,
    wanted_records,
)
from mailyard.protocol.dns_spf import SpfReport, spf_walk

Results: TypeAlias = Mapping[Question, Result[Any]]
Check: TypeAlias = Generator[tuple[Question, ...], Results, tuple[Verdict, ...]]

_ASKS = {"TXT": Ask.TXT, "CNAME": Ask.CNAME, "MX": Ask.MX}


def check_domain(setup: SendingSetup, organisational: OrganisationalDomain) -> Check:
    """A verdict on every wanted record of `setup`, in their order, the alignment last."""
    wanted = wanted_records(setup)
    organisation = organisational(setup.domain)
    questions = [Question(one.name, _ASKS[one.kind]) for one in wanted]
    questions.append(Question(record_name(organisation), Ask.TXT))
    results = dict((yield tuple(dict.fromkeys(questions))))
    again = [
        Question(doubled_name(one.name, setup.domain), one.ask)
        for one, result in results.items()
        if isinstance(result, NoName | NoRecords) and one.name != setup.domain
    ]
    if again:
        results.update((yield tuple(again)))
    spf_names = [one.name for one in wanted if one.purpose in _SPF]
    reports = {}
    for name in spf_names:
        reports[name] = yield from _in_rounds(spf_walk(name))
    return tuple(_verdicts(setup, results, reports, organisational))


def check_addresses(addresses: Sequence[Address], hello: str) -> Check:
    """A verdict on the name of each address that we send from, in their order."""
    asked = {one: Question(one.reverse_pointer, Ask.PTR) for one in addresses}
    names = yield tuple(asked.values())
    found = [result for result in names.values() if isinstance(result, Answer)]
    forward = tuple(
        dict.fromkeys(Question(name, Ask.ADDRESSES) for one in found for name in one.records)
    )
    back = (yield forward) if forward else {}
    leads = {question.name: result for question, result in back.items()}
    return tuple(
        check_address_name(address, hello, names[question], leads)
        for address, question in asked.items()
    )


_SPF = (Purpose.SPF, Purpose.RETURN_PATH_SPF)


def _in_rounds(
    walk: Generator[Question, Result[Any], SpfReport],
) -> Generator[tuple[Question, ...], Results, SpfReport]:
    """A walk of one question at a time, as rounds of one."""
    question = next(walk)
    while True:
        results = yield (question,)
        try:
            question = walk.send(results[question])
        except StopIteration as end:
            report: SpfReport = end.value
            return report


def _verdicts(
    setup: SendingSetup,
    results: Results,
    reports: Mapping[str, SpfReport],
    organisational: OrganisationalDomain,
) -> Generator[Verdict, None, None]:
    domain = setup.domain
    for key in setup.dkim:
        question = Question(dkim_name(key.selector, domain), Ask.TXT)
        yield check_dkim(key, domain, results[question], _doubled(results, question, domain))
    yield from _on_return_path(setup, results, reports)
    required = not setup.return_path
    yield check_spf(Purpose.SPF, setup.spf_terms, reports[domain], required=required)
    own = results[Question(record_name(domain), Ask.TXT)]
    organisation = organisational(domain)
    theirs = results[Question(record_name(organisation), Ask.TXT)]
    found = dmarc_of(domain, own, organisation, theirs)
    yield check_dmarc(setup, found, own)
    if setup.tracking:
        yield _on_alias(Purpose.TRACKING, domain, setup.tracking, setup.tracking_target, results)
    if setup.receiving:
        mx = results[Question(domain, Ask.MX)]
        yield check_mx(Purpose.RECEIVING, domain, setup.receiving, mx)
    yield check_alignment(setup, domain, found, organisational)


def _on_return_path(
    setup: SendingSetup, results: Results, reports: Mapping[str, SpfReport]
) -> Generator[Verdict, None, None]:
    name = setup.return_path
    if name and setup.return_path_target:
        yield _on_alias(Purpose.RETURN_PATH, setup.domain, name, setup.return_path_target, results)
    elif name:
        mx = results[Question(name, Ask.MX)]
        yield check_mx(Purpose.RETURN_PATH, name, setup.return_path_hosts, mx)
        yield check_spf(Purpose.RETURN_PATH_SPF, setup.spf_terms, reports[name], required=True)


def _on_alias(purpose: Purpose, domain: str, name: str, target: str, results: Results) -> Verdict:
    question = Question(name, Ask.CNAME)
    doubled = _doubled(results, question, domain)
    return check_alias(purpose, domain, name, target, results[question], doubled=doubled)


def _doubled(results: Results, question: Question, domain: str) -> Result[Any] | None:
    return results.get(Question(doubled_name(question.name, domain), question.ask))
