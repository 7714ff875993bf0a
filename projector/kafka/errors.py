"""What an error of the cluster means, in our own words."""


def describe_kafka(error: BaseException) -> str:
    """An error of the cluster, without what it says about the message."""
    return type(error).__name__
