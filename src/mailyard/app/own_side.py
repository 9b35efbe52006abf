"""What the settings say of this installation's own part in the records of sending domains."""

from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address

from mailyard.protocol.dns_answer import Address
from mailyard.sending.domain_check import OwnSide
from mailyard.sending.return_path import is_public
from mailyard.sending.transports.mx.source import Source
from mailyard.settings import Settings


def own_side(settings: Settings, sources: Sequence[Source] = ()) -> OwnSide:
    """Our host's name, if others can find it; what SPF must allow; where mail may come back to.

    `sources`: the addresses of the pools, which are looked at like those of the settings, each
    under the name that it says. Behind NAT they are private, and the settings name the public ones.
    """
    hello = settings.smtp_name if is_public(settings.smtp_name) else ""
    said: dict[Address, str] = {
        ip_address(one): hello for one in settings.sending_addresses.replace(",", " ").split()
    }
    for source in sources:
        for address in (source.four, source.six):
            if address is not None and address.is_global:
                said[address] = source.hello if is_public(source.hello) else hello
    addresses = tuple(said)
    terms = tuple(settings.spf.split())
    if not terms:
        terms = tuple(f"ip{4 if isinstance(one, IPv4Address) else 6}:{one}" for one in addresses)
    if not terms and hello and not settings.relay_url:
        terms = (f"a:{hello}",)
    target = settings.returns_at
    return OwnSide(
        hello=hello,
        spf_terms=terms,
        takes_returns=bool(target and (hello or is_public(target))),
        return_domain=settings.return_domain if is_public(settings.return_domain) else "",
        addresses=addresses,
        names={address: name for address, name in said.items() if name != hello},
    )
