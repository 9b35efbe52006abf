"""What is wrong with aliases, mail exchangers and names of addresses, and what to write instead."""

import re
from collections.abc import Mapping, Sequence

from mailyard.protocol.dns_answer import (
    Address,
    Answer,
    MxRecord,
    NoName,
    NoRecords,
    Result,
    TemporaryFailure,
)
from mailyard.protocol.dns_records import Purpose, State, Verdict, doubled_name, mx_text


def check_alias(
    purpose: Purpose,
    domain: str,
    name: str,
    target: str,
    result: Result[str],
    *,
    doubled: Result[str] | None = None,
) -> Verdict:
    """Whether `name` is an alias for `target`. `result`: the CNAME answer at `name`; `doubled`:
    that at its `doubled_name`, asked for when the name does not exist."""

    def verdict(state: State, problem: str = "", write: str = target) -> Verdict:
        found = result.records if isinstance(result, Answer) else ()
        return Verdict(purpose, name, "CNAME", state, problem, write, found=found)

    if isinstance(result, TemporaryFailure):
        return verdict(State.UNKNOWN, f"DNS could not say: {result.trouble.value}", "")
    if isinstance(result, NoName):
        if isinstance(doubled, Answer):
            short = name.removesuffix("." + domain)
            at = doubled_name(name, domain)
            return verdict(
                State.WRONG,
                f"the alias stands at {at}: the DNS host adds the domain by itself, so enter only "
                f"{short} as its name",
            )
        return verdict(State.MISSING, "there is no such name")
    if isinstance(result, NoRecords):
        return verdict(
            State.WRONG,
            "the name has other records and is no alias; remove them, and switch off a proxy that "
            "answers in its place",
        )
    if result.records[0] == target:
        return verdict(State.GOOD, write="")
    if result.records[0] == f"{target}.{domain}":
        return verdict(
            State.WRONG,
            f"it leads to {result.records[0]}: the DNS host added the domain to the target; end "
            "the target with a dot",
        )
    return verdict(State.WRONG, f"it leads to {result.records[0]}")


def check_mx(
    purpose: Purpose, name: str, wanted: Sequence[MxRecord], result: Result[MxRecord]
) -> Verdict:
    """Whether mail for `name` comes to one of our hosts, `wanted`, and to them first."""
    write = ", ".join(map(mx_text, wanted))
    ours = {record.host for record in wanted}
    records = result.records if isinstance(result, Answer) else ()
    others = tuple(record for record in records if record.host not in ours)

    def verdict(
        state: State, problem: str = "", write: str = write, remove: Sequence[MxRecord] = ()
    ) -> Verdict:
        return Verdict(
            purpose,
            name,
            "MX",
            state,
            problem,
            write,
            tuple(map(mx_text, remove)),
            tuple(map(mx_text, records)),
        )

    if isinstance(result, TemporaryFailure):
        return verdict(State.UNKNOWN, f"DNS could not say: {result.trouble.value}", "")
    if not isinstance(result, Answer):
        return verdict(State.MISSING, "there is no MX record")
    if all(record.host == "." for record in records):
        return verdict(State.WRONG, "a null MX says that no mail is taken", remove=others)
    best = min((record.preference for record in records if record.host in ours), default=None)
    if best is None:
        named = ", ".join(record.host for record in others[:3])
        return verdict(State.WRONG, f"mail goes to {named} and not to us", remove=others)
    before = tuple(record for record in others if record.preference <= best)
    if before:
        problem = f"mail goes to {before[0].host} before us or as often as to us"
        return verdict(State.WRONG, problem, remove=before)
    if others:
        problem = f"when we do not answer, mail goes to {others[0].host}"
        return verdict(State.WARNING, problem, "", others)
    return verdict(State.GOOD, write="")


def check_address_name(
    address: Address, hello: str, result: Result[str], forward: Mapping[str, Result[Address]]
) -> Verdict:
    """Whether an address that we send from has a name that leads back to it, and it is the one
    that we say in EHLO.

    `result`: the PTR answer; `forward`: the addresses of each name in it. Receivers refuse mail
    from addresses without a forward-confirmed name (RFC 8601 section 2.7.3 names the check).
    """

    def verdict(state: State, problem: str = "", write: str = hello) -> Verdict:
        found = result.records if isinstance(result, Answer) else ()
        return Verdict(
            Purpose.ADDRESS_NAME, str(address), "PTR", state, problem, write, found=found
        )

    if isinstance(result, TemporaryFailure):
        return verdict(State.UNKNOWN, f"DNS could not say: {result.trouble.value}", "")
    if not isinstance(result, Answer):
        return verdict(State.MISSING, "the address has no name; whoever owns it can set one")
    confirmed = [name for name in result.records if _leads_to(forward.get(name), address)]
    if not confirmed:
        unknown = [
            name for name in result.records if isinstance(forward.get(name), TemporaryFailure)
        ]
        if unknown:
            return verdict(State.UNKNOWN, f"DNS could not say where {unknown[0]} leads", "")
        named = ", ".join(result.records[:3])
        return verdict(State.WRONG, f"its name {named} does not lead back to {address}")
    if hello not in confirmed:
        problem = f"its name is {confirmed[0]}, and we say {hello} in EHLO"
        return verdict(State.WARNING, problem)
    if _is_made_of(hello, address):
        problem = f"{hello} looks like a name that a provider gives to every address"
        return verdict(State.WARNING, problem, "")
    return verdict(State.GOOD, write="")


def _leads_to(result: Result[Address] | None, address: Address) -> bool:
    return isinstance(result, Answer) and address in result.records


def _is_made_of(name: str, address: Address) -> bool:
    """Whether the name spells the address: three of four decimal numbers, or its hex digits."""
    first = name.split(".")[:-2]
    if address.version == 6:
        digits = address.exploded.replace(":", "")
        return digits[-16:] in re.sub(r"[^0-9a-f]", "", ".".join(first))
    parts = str(address).split(".")
    numbers = re.findall(r"[0-9]+", ".".join(first))
    held = sum(part in [one.lstrip("0") or "0" for one in numbers] for part in set(parts))
    return held >= min(3, len(set(parts))) and len(numbers) >= 3
