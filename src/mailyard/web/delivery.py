"""A delivery as the API and the page show it."""

from dataclasses import replace

from mailyard.queue.engine import Engine
from mailyard.queue.job import EMAIL_SEND
from mailyard.sending.delivery import Delivery
from mailyard.sending.states import TABLE, Event, after


async def as_it_stands(engine: Engine, delivery: Delivery) -> Delivery:
    """`delivery`, as `leased` while a worker holds its email's job: no row ever says that."""
    email_id = delivery.email_id
    if email_id is None or Event.LEASE not in TABLE[delivery.state]:
        return delivery
    if await engine.is_leased(delivery.workspace_id, EMAIL_SEND, email_id.bytes):
        return replace(delivery, state=after(delivery.state, Event.LEASE))
    return delivery
