"""Tests on a Kafka broker, and the brokers they run on."""
