"""What the settings say of this installation's own part in the records of sending domains."""

from ipaddress import IPv4Address, ip_address

from mailyard.sending.domain_check import OwnSide
from mailyard.sending.return_path import is_public
from mailyard.settings import Settings


def own_side(settings: Settings) -> OwnSide:
    """Our host's name, if others can find it; what SPF must allow; where mail may come back to."""
    hello = settings.smtp_name if is_public(settings.smtp_name) else ""
    addresses = tuple(map(ip_address, settings.sending_addresses.replace(",", " ").split()))
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
    )
