"""Errors of the cluster are told in our own words, which say what to do and nothing that a message holds."""

import ssl

import aiokafka.errors
import pytest
from aiokafka.errors import KafkaError, kafka_errors

from projector.kafka.errors import AccessError, describe_kafka

CONTENT = "content of a row"

# What only a fault of the client or of another kind of client can raise; the class's name says enough.
_OTHERS = {
    "NoError", "UnknownError", "InvalidFetchRequestError", "StaleControllerEpochError", "OffsetMetadataTooLargeError",
    "StaleLeaderEpochCodeError", "InvalidRequiredAcksError", "InvalidCommitOffsetSizeError", "InvalidTimestampError",
    "InvalidReplicationAssignmentError", "InvalidConfigurationError", "InvalidRequestError",
    "UnsupportedForMessageFormatError", "InvalidTransactionTimeout", "OperationNotAttempted", "LogDirNotFound",
    "ReassignmentInProgress", "DelegationTokenAuthDisabled", "DelegationTokenNotFound", "DelegationTokenOwnerMismatch",
    "DelegationTokenRequestNotAllowed", "DelegationTokenAuthorizationFailed", "DelegationTokenExpired",
    "InvalidPrincipalType", "NonEmptyGroup", "GroupIdNotFound", "FetchSessionIdNotFound", "InvalidFetchSessionEpoch",
    "ListenerNotFound", "MemberIdRequired",
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in kafka_errors.values() if kind.__name__ not in _OTHERS])
def test_what_a_broker_answers_has_words(kind: type[KafkaError]) -> None:
    words = describe_kafka(kind(CONTENT))
    assert words.startswith(f"{kind.__name__}: ")
    assert CONTENT not in words


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (aiokafka.errors.TopicAuthorizationFailedError("t"), "ACL"),
        (aiokafka.errors.GroupAuthorizationFailedError("g"), "ACL"),
        (aiokafka.errors.TransactionalIdAuthorizationFailed("t"), "ACL"),
        (aiokafka.errors.AuthenticationFailedError("x"), "REPORTING_KAFKA_SASL_"),
        (aiokafka.errors.KafkaConnectionError("x"), "REPORTING_KAFKA_BOOTSTRAP_SERVERS"),
        (aiokafka.errors.KafkaTimeoutError(), "in time"),
        (aiokafka.errors.UnknownTopicOrPartitionError("t"), "projector kafka create"),
        (aiokafka.errors.MessageSizeTooLargeError(CONTENT), "max.message.bytes"),
        (aiokafka.errors.ProducerFenced(), "another process"),
        (aiokafka.errors.RebalanceInProgressError(), "passes"),
        (ssl.SSLCertVerificationError("x"), "REPORTING_KAFKA_SSL_CA_FILE"),
        (ssl.SSLError("x"), "REPORTING_KAFKA_SECURITY_PROTOCOL"),
        (TimeoutError(), "in time"),
        (ConnectionResetError(), "REPORTING_KAFKA_BOOTSTRAP_SERVERS"),
        (AccessError("the file of the token is empty"), "the file of the token is empty"),
    ],
)
def test_says_what_to_do(error: Exception, hint: str) -> None:
    assert hint in describe_kafka(error)


def test_an_error_without_words_of_ours_is_its_class_alone() -> None:
    assert describe_kafka(KafkaError(CONTENT)) == "KafkaError"
