"""The core of the queue's contract, on Kafka."""

from contract.test_queue_core import *  # noqa: F403
