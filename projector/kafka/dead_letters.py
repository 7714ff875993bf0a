"""The dead-letter topic: messages that cannot be read, with the reason (README: Kafka)."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from aiokafka import ConsumerRecord, TopicPartition

from projector.kafka.metrics import ConsumerMetrics
from projector.kafka.producer import Producer
from projector.kafka.publish import Message


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that cannot be read: as it came, a reason from a closed set, and details in our own words."""

    record: ConsumerRecord[bytes | None, bytes | None]
    reason: str
    detail: str

    @property
    def place(self) -> TopicPartition:
        """The partition that it was in."""
        return TopicPartition(self.record.topic, self.record.partition)


class DeadLetters:
    """Puts messages that cannot be read where an operator finds them."""

    def __init__(
        self, topic: str, producer: Producer, metrics: ConsumerMetrics, log: structlog.stdlib.BoundLogger
    ) -> None:
        """Args: topic: the dead-letter topic; producer: of this object alone; metrics, log: told of each message."""
        self.topic, self._producer, self._metrics, self._log = topic, producer, metrics, log

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """Publishes messages as they came, their reason and their place in headers.

        Raises:
            aiokafka.errors.KafkaError: some did not get through; all are to be put again.
        """
        if not letters:
            return
        await self._producer.publish(self.topic, [_message(letter) for letter in letters])
        for letter in letters:
            self._metrics.dead_letter(letter.reason)
            self._log.warning(
                "message cannot be read, put into the dead-letter topic", topic=letter.record.topic,
                partition=letter.record.partition, offset=letter.record.offset, reason=letter.reason,
                detail=letter.detail, dead_letter_topic=self.topic,
            )  # fmt: skip

    async def close(self) -> None:
        """Lets go of the connections."""
        await self._producer.close()


def _message(letter: DeadLetter) -> Message:
    record = letter.record
    ours = {
        "reason": letter.reason, "detail": letter.detail, "topic": record.topic,
        "partition": str(record.partition), "offset": str(record.offset),
    }  # fmt: skip
    return Message(
        record.key or b"", record.value,
        (*record.headers, *((f"dead-letter-{name}", text.encode()) for name, text in ours.items())),
    )  # fmt: skip
