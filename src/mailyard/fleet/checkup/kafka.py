"""What `mailyard doctor` says about Kafka: brokers that answer, topics that stand, copies."""

from collections.abc import Sequence

from mailyard.core.errors import MailyardError
from mailyard.fleet.checkup.finding import Finding, Grade
from mailyard.queue.engines.kafka.options import KafkaOptions
from mailyard.queue.engines.kafka.topics import Topics

_COPIES = 3  # so that a record is on two brokers when one is away


async def check_kafka(options: KafkaOptions, lanes: Sequence[str]) -> list[Finding]:
    """The cluster, and the topics of `lanes`."""
    topics = Topics(options)
    try:
        brokers = await topics.brokers()
        there = await topics.describe()
    except MailyardError as error:
        return [
            Finding(
                "Kafka", Grade.BAD, error.message, "start it, or correct MAILYARD_KAFKA_SERVERS"
            )
        ]
    enough = brokers >= _COPIES
    findings = [
        Finding(
            "Kafka",
            Grade.GOOD if enough else Grade.WARN,
            f"{brokers} brokers",
            "" if enough else f"a fleet has {_COPIES}: one may go then, and nothing waits",
        )
    ]
    missing = [options.topic(lane) for lane in lanes if options.topic(lane) not in there]
    if missing:
        findings.append(
            Finding(
                "Kafka topics", Grade.BAD, f"lacks {', '.join(missing)}", "mailyard queue provision"
            )
        )
        return findings
    thin = [options.topic(lane) for lane in lanes if there[options.topic(lane)][1] < _COPIES]
    findings.append(
        Finding(
            "Kafka topics",
            Grade.WARN if thin and enough else Grade.GOOD,
            f"{len(lanes)} stand" + (f", with fewer than {_COPIES} copies: {thin}" if thin else ""),
            "raise their replication with kafka-reassign-partitions" if thin and enough else "",
        )
    )
    return findings
