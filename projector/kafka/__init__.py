"""Kafka: the outbox spread over consumers, the facts as a changelog. Correctness never depends on it (promise 7)."""
