"""What a template may know of the person whom the mail goes to, beside the data that are given.

    {{ contact.name }} {{ contact.city }}      the contact's fields and attributes
    {% if preferences["News"] %}…              whether the address gets each topic
    locale, timezone                           of the contact, where dates and money are written

In a campaign the attributes are there by their own names too.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

CONTACT = "contact"
PREFERENCES = "preferences"
SPOKEN = ("locale", "timezone")


class Personal(Protocol):
    """Looks people up, many at a time; what it says may be a minute old."""

    async def contacts(
        self, workspace_id: UUID, addresses: Sequence[str]
    ) -> Mapping[str, dict[str, Any]]:
        """Fields and attributes by normalised address, of those who are contacts."""
        ...

    async def preferences(
        self, workspace_id: UUID, addresses: Sequence[str]
    ) -> Mapping[str, dict[str, bool]]:
        """For each normalised address whether it gets each topic, by the topics' names."""
        ...
