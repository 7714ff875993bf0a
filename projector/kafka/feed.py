"""The Kafka feed of the daemon: consumers that bring rows, and a slow sweep for what they do not (design: feeds)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry

from projector.health import Health
from projector.kafka.client import new_consumer, new_producer
from projector.kafka.consumer import Consumer
from projector.kafka.dead_letters import DeadLetters
from projector.kafka.metrics import ConsumerMetrics
from projector.kafka.producer import Producer
from projector.kafka.settings import KafkaSettings
from projector.kafka.topics import dead_letter_topic
from projector.overdue import Overdue
from projector.process import Named
from projector.worker import Claims, Worker, wait_for

NewWorker = Callable[[str, Claims, Callable[[], Awaitable[object]]], Worker]
"""Makes a worker of that name; takes which rows it claims, and how it rests when there are none."""


@dataclass(frozen=True, slots=True)
class KafkaFeed:
    """What consumers need.

    Attributes:
        settings: the cluster, the topic, the group, the sweep.
        most: how many messages one consumer takes at once.
    """

    settings: KafkaSettings
    most: int
    prometheus: CollectorRegistry
    health: Health
    stop: asyncio.Event
    log: structlog.stdlib.BoundLogger

    def workers(self, count: int, new_worker: NewWorker) -> list[Named]:
        """So many workers, each with a member of the group of its own, and one that sweeps."""
        metrics = ConsumerMetrics(self.prometheus)
        named = [f"worker-{number}" for number in range(count)]
        return [
            *((name, self._consume(name, new_worker, metrics)) for name in named),
            ("sweep", self._sweep(new_worker)),
        ]

    async def _consume(self, name: str, new_worker: NewWorker, metrics: ConsumerMetrics) -> None:
        settings, log = self.settings, self.log.bind(worker=name)
        producer = Producer(lambda: new_producer(settings), self.stop)
        dead_letters = DeadLetters(dead_letter_topic(settings), producer, metrics, log)
        consumer = Consumer(
            settings, self.most, new=lambda: new_consumer(settings), dead_letters=dead_letters, metrics=metrics,
            health=self.health, stop=self.stop, log=log, clock=time.monotonic,
        )  # fmt: skip
        try:
            await new_worker(name, consumer, consumer.rest).run()
        finally:
            await consumer.close()
            await dead_letters.close()

    async def _sweep(self, new_worker: NewWorker) -> None:
        seconds = self.settings.reporting_kafka_sweep_secs
        await new_worker("sweep", Overdue(seconds), lambda: wait_for(self.stop.wait(), seconds)).run()
