"""A member of the consumer group: messages name the rows that a worker's batches claim (design: feeds)."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import asyncpg
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError

from projector.health import Health
from projector.kafka.dead_letters import DeadLetter, DeadLetters
from projector.kafka.decode import decode
from projector.kafka.errors import describe_kafka
from projector.kafka.metrics import ConsumerMetrics
from projector.kafka.named import AGAIN_SECONDS, NamedRows
from projector.kafka.patience import Endings, within
from projector.kafka.settings import KafkaSettings
from projector.outbox import ClaimedRows
from projector.worker import Backoff, wait_for

_POLL_SECONDS = 0.2
# A group waits half a minute for members that do not answer before it goes on without them.
_JOIN_SECONDS = 60.0
# A commit for each of many small batches costs the cluster more than their messages do. After a crash what was read
# since the last one is read again, and its rows are found settled.
_COMMIT_EVERY_SECONDS = 0.5
_COMMIT_SECONDS = 30.0
# Where no messages come, the library does not tell whether there are none or the cluster is away: it is asked.
_QUIET_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
# How long a put into the dead-letter topic holds up the good messages, and how often it is tried.
_PUT_SECONDS = 3.0
_PUT_AGAIN_SECONDS = 10.0
_FAULTS_UNTIL_NOT_READY = 3
# How long a rebalance waits for the batch at work: its messages would be read again by others, to no harm.
_LET_GO_SECONDS = 5.0

Records = list[ConsumerRecord[bytes | None, bytes | None]]


@dataclass(slots=True)
class Consumer:
    """Gives one worker its rows, and commits offsets once their batches are committed in the database.

    Attributes:
        settings: which topic is read, and how its messages are written.
        most: how many messages are taken at once.
        new: makes a member of the group, not started; it joins at the first rest.
        dead_letters: where messages go that cannot be read.
        metrics: shared with the other consumers of the process.
        health: told when the cluster is away.
        stop: set when no more messages are to be taken.
        log: bound to the worker's name.
        clock: monotonic seconds.
    """

    settings: KafkaSettings
    most: int
    new: Callable[[], AIOKafkaConsumer]
    dead_letters: DeadLetters
    metrics: ConsumerMetrics
    health: Health
    stop: asyncio.Event
    log: structlog.stdlib.BoundLogger
    clock: Callable[[], float]
    _consumer: AIOKafkaConsumer | None = None
    _backoff: Backoff = field(default_factory=Backoff)
    _rejected: list[DeadLetter] = field(default_factory=list)
    # Up to where messages were taken whose offsets are not committed yet, and how far behind their partitions are.
    _taken: dict[TopicPartition, int] = field(default_factory=dict)
    _behind: dict[TopicPartition, int] = field(default_factory=dict)
    # The same of partitions whose offsets stay before a message that is not among the dead letters yet.
    _held: dict[TopicPartition, int] = field(default_factory=dict)
    _put_at: float = 0.0
    _commit_at: float = 0.0
    _all_settled: asyncio.Event = field(default_factory=asyncio.Event)
    _answered_at: float = 0.0
    _endings: Endings = field(default_factory=Endings)

    _named: NamedRows = field(init=False)

    def __post_init__(self) -> None:
        self._named = NamedRows(self.clock)
        self._all_settled.set()

    @property
    def more(self) -> bool:
        """Whether more messages are known to wait."""
        return bool(self._named) or any(self._behind.values())

    @property
    def exhausted(self) -> bool:
        """Whether all messages that were taken have been tried."""
        return not self._named

    async def claim(self, connection: asyncpg.Connection, limit: int) -> list[ClaimedRows]:
        """Claims up to `limit` rows that messages have named, those that are due or leased."""
        return await self._named.claim(connection, limit)

    def settled(self) -> None:
        """Tells that the batch was committed."""
        self._named.settled()

    def given_up(self) -> None:
        """Tells that the batch was rolled back: its rows are claimed again."""
        self._named.given_up()

    async def rest(self) -> bool:
        """Commits the offsets of what was settled and takes more messages; returns once there are some or at `stop`."""
        while not self._named:
            try:
                await self._put_rejected()
                self._note_settled()
                if self.stop.is_set() or self.clock() >= self._commit_at:
                    await self._commit()
                if self.stop.is_set():
                    break
                self._named.take_again()
                await self._take()
                self._recovered()
            except KafkaError as error:
                if self.stop.is_set():
                    break
                await self._pause_after(error)
        return True

    async def close(self) -> None:
        """Leaves the group."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await self._endings.end(consumer.stop())

    async def _take(self) -> None:
        """Takes the messages that are there, or waits a moment for some."""
        consumer = await within(_JOIN_SECONDS, self.stop, self._joined())
        # Rows that are there already wait for no messages, those that come back wait for them no longer than they must.
        seconds = 0.0 if self._named else AGAIN_SECONDS if self._named.some_are_held else _POLL_SECONDS
        polled: dict[TopicPartition, Records] = await consumer.getmany(
            timeout_ms=round(seconds * 1000), max_records=self.most
        )
        if polled:
            self._all_settled.clear()
            self._answered_at = self.clock()
        elif self.clock() - self._answered_at > _QUIET_SECONDS:
            await within(_ANSWER_SECONDS, self.stop, consumer.end_offsets(consumer.assignment()))
            self._answered_at = self.clock()
        for place, records in polled.items():
            decoded = decode(self.settings.reporting_kafka_message_format, records)
            self._named.add(decoded.ids)
            self._rejected += [DeadLetter(records[each.place], each.reason, each.detail) for each in decoded.rejected]
            self._taken[place] = records[-1].offset + 1
            self.metrics.read(len(records))
            self._show_lag(consumer, {place: records[0].offset})

    async def _put_rejected(self) -> None:
        """Puts away what cannot be read. Where that fails, the others go on, but no offset is committed beyond it."""
        if not self._rejected or self.clock() < self._put_at:
            return
        try:
            await within(_PUT_SECONDS, self.stop, self.dead_letters.put(self._rejected))
        except KafkaError as error:
            self._put_at = self.clock() + _PUT_AGAIN_SECONDS
            self.metrics.error(type(error).__name__)
            self.log.warning(
                "dead-letter topic takes no messages; see that it is there and may be written to",
                dead_letter_topic=self.dead_letters.topic, waiting=len(self._rejected), error=describe_kafka(error),
            )  # fmt: skip
            if len(self._rejected) >= self.most:
                raise
        else:
            self._rejected, self._put_at = [], 0.0
            self._taken, self._held = self._held | self._taken, {}

    def _note_settled(self) -> None:
        """Notes that the database has committed all that was taken."""
        self._all_settled.set()
        if self._taken and self._consumer is not None:
            self._show_lag(self._consumer, self._settled_up_to(self._consumer))

    def _settled_up_to(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        """Up to where all is settled, or a dead letter, in partitions that are still this consumer's."""
        first: dict[TopicPartition, int] = {}
        for letter in self._rejected:
            first.setdefault(letter.place, letter.record.offset)
        mine = consumer.assignment()
        return {place: min(at, first.get(place, at)) for place, at in self._taken.items() if place in mine}

    async def _commit(self) -> None:
        """Commits the offsets of all that was taken; the database must have committed all of it."""
        self._commit_at = self.clock() + _COMMIT_EVERY_SECONDS
        if not self._taken or self._consumer is None:
            return
        settled = self._settled_up_to(self._consumer)
        unput = {letter.place for letter in self._rejected}
        self._held |= {place: at for place, at in self._taken.items() if place in unput}
        self._taken = {}
        try:
            await within(_COMMIT_SECONDS, self.stop, self._consumer.commit(settled))
        except CommitFailedError:
            self.log.info("offsets not committed, the partitions went to others; they find the rows settled")

    async def _joined(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = self.new()
            topic = self.settings.reporting_kafka_outbox_topic
            consumer.subscribe([topic], listener=_Rebalances(self.assigned, self.revoked))
            try:
                await consumer.start()
            except BaseException:
                await self._endings.end(consumer.stop())
                raise
            self._consumer = consumer
            self._answered_at = self.clock()
        return self._consumer

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Told by the group which partitions are this consumer's from now on."""
        self.metrics.rebalanced()
        self.log.info("partitions assigned", partitions=sorted(place.partition for place in partitions))

    async def revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """Told by the group that partitions are about to go to others: lets the batch at work end, for a while."""
        await wait_for(self._all_settled.wait(), _LET_GO_SECONDS)
        if self._all_settled.is_set():
            await self._commit_last()
        self.metrics.revoked(partitions)
        self._forget_rejected(set(partitions))
        for place in partitions:
            self._behind.pop(place, None)

    async def _commit_last(self) -> None:
        try:
            await self._commit()
        except KafkaError as error:
            self.log.info(
                "offsets not committed before the partitions go to others; they find the rows settled",
                error=describe_kafka(error),
            )

    def _forget_rejected(self, places: set[TopicPartition]) -> None:
        """Forgets messages that wait for the dead-letter topic; no offset beyond them is committed: they come again."""
        for place in {letter.place for letter in self._rejected} & places:
            self._taken.pop(place, None)
        self._rejected = [letter for letter in self._rejected if letter.place not in places]
        self._held = {place: at for place, at in self._held.items() if place not in places}

    def _show_lag(self, consumer: AIOKafkaConsumer, positions: dict[TopicPartition, int]) -> None:
        for place, position in positions.items():
            self._behind[place] = max((consumer.highwater(place) or 0) - position, 0)
        self.metrics.lag({place: self._behind[place] for place in positions})

    def _recovered(self) -> None:
        self._backoff.reset()
        self.health.ready("kafka")

    async def _pause_after(self, error: KafkaError) -> None:
        """Waits after a fault of the cluster, then joins anew."""
        seconds = self._backoff.next()
        words = describe_kafka(error)
        self.metrics.error(type(error).__name__)
        if self._backoff.faults >= _FAULTS_UNTIL_NOT_READY:
            self.health.not_ready("kafka", f"no messages can be read, the sweep alone finds rows: {words}")
        self.log.warning(
            "messages not read, trying again; rows are found by the sweep meanwhile",
            error=words, pause_seconds=round(seconds, 3), faults=self._backoff.faults,
        )  # fmt: skip
        await self.close()
        # Whoever joins begins at what was committed: rows of messages that are read again are settled already.
        self._taken, self._held, self._rejected = {}, {}, []
        self._all_settled.set()
        await wait_for(self.stop.wait(), seconds)


class _Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells a consumer of its partitions."""

    def __init__(
        self, assigned: Callable[[Iterable[TopicPartition]], None],
        revoked: Callable[[Iterable[TopicPartition]], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._assigned, self._revoked = assigned, revoked

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._assigned(assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._revoked(revoked)
