"""The core of the queue's contract, on Kafka."""

from contract.test_queue_core import *  # noqa: F403
from contract.test_queue_rescue import *  # noqa: F403
