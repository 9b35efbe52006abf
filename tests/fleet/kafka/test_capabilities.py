"""What the engine on Kafka declares beyond the core."""

from contract.test_queue_capabilities import *  # noqa: F403
