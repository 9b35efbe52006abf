"""What tracking saw people do, into what contacts did: segments and journeys read it there."""

from collections.abc import Sequence

from mailyard.campaigns.behaviour import Behaviour, ContactEvent
from mailyard.sending.track.record import Act
from mailyard.storage.database import Connection


class ContactActs:
    """Hears of the opens and clicks of people, those of machines left out."""

    def __init__(self, *, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    async def record(self, acts: Sequence[Act], tx: Connection) -> None:
        """Write them in the caller's transaction; one that is said again counts once."""
        await self._behaviour.record_many(
            [
                ContactEvent(
                    id=act.id,
                    workspace_id=act.workspace_id,
                    contact_id=act.contact_id,
                    kind=act.kind,
                    delivery_id=act.delivery_id,
                    campaign_id=act.campaign_id,
                )
                for act in acts
            ],
            tx,
        )
