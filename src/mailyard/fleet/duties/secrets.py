"""After a change of the master key: what the old one sealed is sealed under the new one."""

import structlog

from mailyard.fleet.duty import Duty
from mailyard.sending.domain import Domains
from mailyard.sending.provider import ProviderBook

EVERY_S = 60.0

_LOG = structlog.get_logger(__name__)


def seal_anew(domains: Domains, providers: ProviderBook) -> Duty:
    """Once this has nothing to say any more, the old master key can go."""

    async def do() -> bool:
        sealed = await domains.seal_anew() + await providers.seal_anew()
        if sealed:
            _LOG.info("secrets_sealed_anew", secrets=sealed)
        return bool(sealed)

    return Duty("seal-secrets-anew", EVERY_S, do)
