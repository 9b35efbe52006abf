"""What waits for a provider, and how it is packed into requests. Pure: no clock, no I/O."""

from collections import deque
from collections.abc import Callable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from mailyard.protocol.address import ascii_domain
from mailyard.sending.transport import Handoff, Outgoing, Recipient
from mailyard.sending.transports.vendor import Inexpressible, Item, Vendor

Done = Callable[[Handoff], None]


class Piece(Struct, eq=False):
    """A mail, or some recipients of one, with who wants to know. `returns`: how often it was sent
    and not taken."""

    item: Item
    done: Done
    returns: int = 0

    @property
    def mail(self) -> Outgoing:
        return self.item.mail


def halved(mail: Outgoing) -> tuple[Outgoing, Outgoing]:
    """The same mail for each half of its recipients, of whom there are several."""
    middle = len(mail.recipients) // 2
    return (
        replace(mail, recipients=mail.recipients[:middle]),
        replace(mail, recipients=mail.recipients[middle:]),
    )


def in_words(vendor: Vendor, mail: Outgoing) -> Item:
    """`mail` as the vendor takes it, within its limits. Raises Inexpressible.

    Providers' APIs take addresses in ASCII: the domain as A-labels (RFC 5890), and no local part
    that needs SMTPUTF8, which only SMTP can offer.
    """
    if len(mail.recipients) > vendor.recipients_per_mail:
        raise Inexpressible("it has too many recipients", apart=True)
    if not all(one.address.isascii() for one in mail.recipients):
        mail = replace(mail, recipients=tuple(map(_in_ascii, mail.recipients)))
    item = vendor.item(mail)
    if item.size_bytes + len(item.lot or b"") > vendor.request_bytes:
        raise Inexpressible(f"it is larger than a request may be ({vendor.request_bytes} bytes)")
    return item


def _in_ascii(recipient: Recipient) -> Recipient:
    local, _, domain = recipient.address.rpartition("@")
    if not local.isascii():
        raise Inexpressible("an address needs SMTPUTF8, which its API has not", apart=True)
    return Recipient(recipient.delivery_id, f"{local}@{ascii_domain(domain)}")


class Packing:
    """Pieces that wait, first come first served, and whole requests that go before them."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._pieces: deque[Piece] = deque()
        self._batches: deque[list[Piece]] = deque()

    def __bool__(self) -> bool:
        return bool(self._pieces or self._batches)

    def add(self, piece: Piece) -> None:
        self._pieces.append(piece)

    def add_first(self, pieces: Iterable[Piece]) -> None:
        """They have waited longest, and may go in any company."""
        self._pieces.extendleft(reversed(list(pieces)))

    def add_batches_first(self, batches: Iterable[list[Piece]]) -> None:
        """Each is the next request, as it stands."""
        self._batches.extendleft(reversed(list(batches)))

    def take(self) -> list[Piece]:
        """The next request: a given one, or the first that waits and those that may share it."""
        if self._batches:
            return self._batches.popleft()
        batch = [self._pieces.popleft()]
        lot = batch[0].item.lot
        if lot is None:
            return batch
        room_bytes = self._vendor.request_bytes - batch[0].item.size_bytes - len(lot)
        places = self._vendor.recipients_per_request - len(batch[0].mail.recipients)
        others: deque[Piece] = deque()
        while self._pieces and len(batch) < self._vendor.mails_per_request:
            piece = self._pieces.popleft()
            if piece.item.lot != lot:
                others.append(piece)
                continue
            room_bytes -= piece.item.size_bytes + 1  # and a comma
            places -= len(piece.mail.recipients)
            if room_bytes < 0 or places < 0:
                self._pieces.appendleft(piece)
                break
            batch.append(piece)
        self._pieces.extendleft(reversed(others))
        return batch

    def take_all(self) -> list[Piece]:
        """Everything that waits."""
        waiting = [piece for batch in self._batches for piece in batch]
        waiting += self._pieces
        self._batches.clear()
        self._pieces.clear()
        return waiting
