"""Addresses at which mail comes back: signed return-paths, and where feedback loops report to."""

from mailyard.core.clock import Clock, SystemClock
from mailyard.protocol.address import normalise
from mailyard.sending.return_path import ReturnPaths
from mailyard.sending.srs import looks_rewritten

# RFC 2142 section 5 and 6 names two of them; `fbl` is what receivers' feedback loops are given.
REPORTS = ("fbl", "abuse", "postmaster")


class ReturnAddresses:
    """What a listener asks (`receiving.accept.ReturnMail`): pure, no database."""

    def __init__(self, *, paths: ReturnPaths, domain: str, clock: Clock | None = None) -> None:
        self._paths = paths
        self._domain = normalise(f"x@{domain}").partition("@")[2]
        self._clock = clock or SystemClock()
        self._reports = frozenset(normalise(f"{name}@{domain}") for name in REPORTS)

    def takes(self, address: str) -> bool | None:
        """Whether mail to the normalised `address` comes back to us; None: it is no such address.

        A return-path that nobody here signed is refused, under whichever domain it comes: a sending
        domain may have a return-path name of its own. So is a rewritten sender (SRS) under our own
        domain that is forged or too old; under others it may be anybody's address.
        """
        if self._paths.is_one(address):
            return self._paths.delivery_of(address) is not None
        if looks_rewritten(address):
            if self._paths.rewriting.read(address, self._clock.now()) is not None:
                return True
            return False if address.endswith(f"@{self._domain}") else None
        return True if address in self._reports else None
