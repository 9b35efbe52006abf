"""The families that have expected results."""

from collections.abc import Callable, Iterator, Mapping

from corpora.agreement import address, imaptools, james, mailcore2, mimekit, stalwart
from corpora.agreement.comparison import Comparison, Family

FAMILIES: Mapping[str, Callable[[Family], Iterator[Comparison]]] = {
    "address": address.compare,
    "mime-imaptools": imaptools.compare,
    "mime-james": james.compare,
    "mime-mailcore2": mailcore2.compare,
    "mime-mimekit": mimekit.compare,
    "mime-stalwart": stalwart.compare,
}
