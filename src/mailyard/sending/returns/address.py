"""Addresses at which mail comes back: signed return-paths, and where feedback loops report to."""

from mailyard.protocol.address import normalise
from mailyard.sending.return_path import ReturnPaths

# RFC 2142 section 5 and 6 names two of them; `fbl` is what receivers' feedback loops are given.
REPORTS = ("fbl", "abuse", "postmaster")


class ReturnAddresses:
    """What a listener asks (`receiving.accept.ReturnMail`): pure, no database."""

    def __init__(self, *, paths: ReturnPaths, domain: str) -> None:
        self._paths = paths
        self._reports = frozenset(normalise(f"{name}@{domain}") for name in REPORTS)

    def takes(self, address: str) -> bool | None:
        """Whether mail to the normalised `address` comes back to us; None: it is no such address.

        A return-path that nobody here signed is refused, under whichever domain it comes: a sending
        domain may have a return-path name of its own.
        """
        if self._paths.is_one(address):
            return self._paths.delivery_of(address) is not None
        return True if address in self._reports else None
