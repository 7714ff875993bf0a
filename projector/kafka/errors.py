"""What an error of the cluster means, and what to do: in our own words, never those of a message or a secret."""

import asyncio
import ssl

from aiokafka import errors as kafka


class AccessError(kafka.KafkaError):  # type: ignore[misc] # of another kind it would end the client's own tasks
    """A certificate or token cannot be had; the words are ours, say what to do, and hold no secret."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words

    def __str__(self) -> str:
        return self.words


_CHECK = "see `projector kafka check`"
_MAY_NOT = f"an ACL is missing, {_CHECK}"
_AWAY = (
    "no broker could be reached, or none let us in: check REPORTING_KAFKA_BOOTSTRAP_SERVERS,"
    f" REPORTING_KAFKA_SECURITY_PROTOCOL and the login, or {_CHECK}"
)
_LOGIN = "the cluster refused the login: check REPORTING_KAFKA_SASL_* or the token, and the user there"
_MECHANISM = "the cluster does not take REPORTING_KAFKA_SASL_MECHANISM on that listener"
_TOO_LARGE = "a message is larger than its topic takes: raise the topic's max.message.bytes"
_FENCED = "another process publishes by now"
_REPLICAS = "fewer replicas are in sync than the topic's min.insync.replicas asks for: see to the brokers"
_MOVING = "the cluster is choosing who is in charge, as after a broker went away; it passes"
_REGROUPING = "the group is being shared out anew; it passes"
_SLOW = "the cluster did not answer in time"
_GAP = "the cluster has lost track of what this producer sent, it is made anew"
_TRANSACTION = "the transaction cannot go on, its producer is made anew"
_OLD = "the brokers are too old for what is asked: see REPORTING_KAFKA_IDEMPOTENCE"
_OTHERS = "another program is in the group: give ours one of its own by REPORTING_KAFKA_GROUP"

# By class; a subclass stands before what it is derived from.
_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (kafka.TopicAuthorizationFailedError, f"the user may not use a topic: {_MAY_NOT}"),
    (kafka.GroupAuthorizationFailedError, f"the user may not join the consumer group: {_MAY_NOT}"),
    (kafka.TransactionalIdAuthorizationFailed, f"the user may not use the transactional id: {_MAY_NOT}"),
    (kafka.ClusterAuthorizationFailedError, f"the user may not do this on the cluster: {_MAY_NOT}"),
    (kafka.AuthenticationFailedError, _LOGIN),
    (kafka.SaslAuthenticationFailed, _LOGIN),
    (kafka.AuthenticationMethodNotSupported, _MECHANISM),
    (kafka.UnsupportedSaslMechanismError, _MECHANISM),
    (kafka.IllegalSaslStateError, "the listener wants another login: check REPORTING_KAFKA_SECURITY_PROTOCOL"),
    (kafka.SecurityDisabled, "the cluster has no ACLs switched on"),
    (kafka.KafkaConnectionError, _AWAY),
    (kafka.NoBrokersAvailable, _AWAY),
    (kafka.KafkaUnavailableError, _AWAY),
    (kafka.MetadataEmptyBrokerList, _AWAY),
    (kafka.NodeNotReadyError, "a broker cannot be reached: see to the brokers"),
    (kafka.BrokerNotAvailableError, "a broker is away: see to the brokers"),
    (kafka.ReplicaNotAvailableError, "a replica is away: see to the brokers"),
    (kafka.KafkaStorageError, "a broker's disk failed: see to the brokers"),
    (kafka.KafkaTimeoutError, _SLOW),
    (kafka.RequestTimedOutError, _SLOW),
    (kafka.UnknownTopicOrPartitionError, f"the topic is not there: create it by `projector kafka create`, {_CHECK}"),
    (kafka.InvalidTopicError, "that is no name for a topic: check REPORTING_KAFKA_OUTBOX_TOPIC and the prefix"),
    (kafka.InvalidGroupIdError, "that is no name for a group: check REPORTING_KAFKA_GROUP"),
    (kafka.InvalidSessionTimeoutError, "the cluster does not allow REPORTING_KAFKA_SESSION_TIMEOUT_SECS"),
    (kafka.MessageSizeTooLargeError, _TOO_LARGE),
    (kafka.RecordTooLargeError, _TOO_LARGE),
    (kafka.RecordListTooLargeError, "a batch is larger than the topic's segments: raise its segment.bytes"),
    (kafka.NotEnoughReplicasError, _REPLICAS),
    (kafka.NotEnoughReplicasAfterAppendError, _REPLICAS),
    (kafka.NotLeaderForPartitionError, _MOVING),
    (kafka.LeaderNotAvailableError, _MOVING),
    (kafka.NotControllerError, _MOVING),
    (kafka.GroupCoordinatorNotAvailableError, _MOVING),
    (kafka.NotCoordinatorForGroupError, _MOVING),
    (kafka.GroupLoadInProgressError, _MOVING),
    (kafka.StaleMetadata, _MOVING),
    (kafka.ProducerFenced, _FENCED),
    (kafka.InvalidProducerEpoch, _FENCED),
    (kafka.TransactionCoordinatorFenced, _FENCED),
    (kafka.ConcurrentTransactions, "the transaction before has not ended yet; it passes"),
    (kafka.InvalidTxnState, _TRANSACTION),
    (kafka.InvalidProducerIdMapping, _TRANSACTION),
    (kafka.OutOfOrderSequenceNumber, _GAP),
    (kafka.DuplicateSequenceNumber, _GAP),
    (kafka.UnknownProducerId, _GAP),
    (kafka.CommitFailedError, "the partitions went to other members of the group; they find the rows settled"),
    (kafka.IllegalGenerationError, _REGROUPING),
    (kafka.UnknownMemberIdError, _REGROUPING),
    (kafka.RebalanceInProgressError, _REGROUPING),
    (kafka.InconsistentGroupProtocolError, _OTHERS),
    (kafka.OffsetOutOfRangeError, "the offsets are no longer in the topic; reading goes on from its beginning"),
    (kafka.CorruptRecordException, "a message was damaged on the way or on a broker's disk"),
    (kafka.UnsupportedCodecError, "the compression is not known here: check REPORTING_KAFKA_COMPRESSION"),
    (kafka.IncompatibleBrokerVersion, _OLD),
    (kafka.UnsupportedVersionError, _OLD),
    (kafka.UnrecognizedBrokerVersion, f"what answered is no broker, or speaks TLS: {_CHECK}"),
    (kafka.InvalidReplicationFactorError, "the cluster has too few brokers: see REPORTING_KAFKA_REPLICATION_FACTOR"),
    (kafka.InvalidPartitionsError, "the cluster does not allow so many: see REPORTING_KAFKA_PARTITIONS"),
    (kafka.PolicyViolationError, "a policy of the cluster forbids it: ask who runs the cluster"),
    (kafka.TopicAlreadyExistsError, "the topic is there already"),
    (kafka.ProducerClosed, "the connection was given up"),
    (ssl.SSLCertVerificationError, "the broker's certificate is not trusted here: check REPORTING_KAFKA_SSL_CA_FILE"),
    (ssl.SSLError, "no TLS with the broker: check REPORTING_KAFKA_SECURITY_PROTOCOL and the port"),
    (TimeoutError, _SLOW),
    (asyncio.IncompleteReadError, "the connection was closed"),
    (ConnectionError, _AWAY),
)


def describe_kafka(error: BaseException) -> str:
    """An error of the cluster, or of the way to it, as its class and our own words, without what it says itself."""
    name = type(error).__name__
    if isinstance(error, AccessError):
        words = error.words
    else:
        words = next((words for kind, words in _WORDS if isinstance(error, kind)), "")
    return f"{name}: {words}" if words else name
