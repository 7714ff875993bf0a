"""What Debezium has sent for changes of the outbox (`*.json`), and how to have it send that again.

`python -m tests.kafka.debezium` writes the files anew. Each is a list of messages in order: key, value, headers.
"""
