"""kill -9 of the publisher, and of the broker: nothing is lost, and what comes again is the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from wardkey_core.log.checkpoint import fingerprint

from tests.publisher import publishers
from tests.publisher.publishers import (
    Log,
    first_ones,
    read,
    topic_of,
    verified,
    wait_published,
    wait_until,
)
from tests.support.database import Database
from tests.support.kafka import Kafka, Message, entries
from wardkey.daemon.service import Stop
from wardkey.publisher.broker import Broker, Delivery
from wardkey.publisher.config import Configuration
from wardkey.publisher.supervisor import Publisher


@pytest.fixture
def stored() -> Iterator[Kafka]:
    """A broker whose topics outlive it."""
    kafka = Kafka(stored=True)
    yield kafka
    kafka.remove()


def check(log: Log, messages: list[Message]) -> None:
    """All is there, first in its order, and what came twice is the same both times."""
    assert first_ones(messages) == log.ids
    assert len(
        {(message.header["id"], message.position, message.value) for message in entries(messages)}
    ) == len(log.ids)
    highest = -1
    for message in entries(messages):
        assert message.position <= highest + 1, "a position was left out"
        highest = max(highest, message.position)
    report = verified(messages, log.tenant, fingerprint(log.public_key))
    assert report.ok and report.entries == len(log.ids), report


def test_publisher_killed_amid_its_work(log: Log, publisher: publishers.Publisher, kafka: Kafka) -> None:
    log.grow(6000, 100)

    def position() -> int:
        return (topic_of(log.connection, log.tenant) or ("", 0))[1]

    for least in (0, 1, 5001):
        publisher.start()
        wait_until(lambda least=least: position() >= least and topic_of(log.connection, log.tenant))
        publisher.kill()
    publisher.start()
    check(log, read(kafka, wait_published(log.connection, log.tenant), repeated=True))


def test_crash_before_the_acknowledgement_is_stored_repeats_the_same(
    log: Log, publisher: publishers.Publisher, kafka: Kafka
) -> None:
    log.grow(50)
    publisher.start()
    wait_published(log.connection, log.tenant)
    publisher.kill()
    log.connection.execute("update ward_internal.audit_topics set position = 30, checkpoint_size = 0")
    log.grow(10)
    publisher.start()
    messages = read(kafka, wait_published(log.connection, log.tenant), repeated=True)
    assert len(entries(messages)) == 50 + 20 + 10
    check(log, messages)


def test_broker_killed_and_back(database: Database, log: Log, stored: Kafka) -> None:
    publisher = publishers.Publisher(database, stored.servers).start()

    def unanswered() -> bool:
        return "Kafka does not answer" in (publisher.status()["trouble"] or "")

    try:
        log.grow(10)
        wait_until(lambda: publisher.status().get("state") == "waiting")
        assert "Kafka cannot be reached" in publisher.status()["trouble"]
        stored.start()
        topic = wait_published(log.connection, log.tenant)
        stored.kill()
        log.grow(200, 40)
        wait_until(unanswered)
        assert topic_of(log.connection, log.tenant) == (topic, 10, 10)
        stored.start()
        wait_published(log.connection, log.tenant)
        stored.kill()
        log.grow(5)
        wait_until(unanswered)
        assert publisher.stop() == 0, "it stops while there is no broker"
        assert topic_of(log.connection, log.tenant) == (topic, 250, 250), "stored, not acknowledged"
        publisher.start()
        stored.start()
        check(log, read(stored, wait_published(log.connection, log.tenant), repeated=True))
    finally:
        print(publisher.errors)
        publisher.remove()


def test_broker_that_forgot_everything_is_told_again(database: Database, log: Log, kafka: Kafka) -> None:
    said: list[str] = []
    stop = Stop()
    publisher = Publisher(
        database.dsn(), Configuration(kafka.servers), report=said.append, stop=stop, patience=1
    )
    thread = threading.Thread(target=publisher.run)
    thread.start()
    try:
        log.grow(30)
        topic = wait_published(log.connection, log.tenant)
        kafka.kill()
        kafka.start()
        log.grow(3)
        wait_until(lambda: any("again" in text and topic in text for text in said))
        wait_published(log.connection, log.tenant)
        messages = kafka.read(topic)
        assert verified(messages, log.tenant, fingerprint(log.public_key)).entries == 33
    finally:
        print(*said, sep="\n")
        stop.set()
        thread.join(20)


def test_a_producer_is_closed_while_its_messages_are_on_their_way(kafka: Kafka) -> None:
    """Taking them back would be a fatal error of the client, raised as no exception of Python's."""
    broker = Broker(Configuration(kafka.servers))
    assert broker.make("audit.on_its_way")
    message: Any = SimpleNamespace(value=b"1", headers=[])
    assert broker.send("audit.on_its_way", b"k", message, Delivery(str))
    wait_until(lambda: broker.serve(0.1) == 0)
    kafka.pause()
    assert broker.send("audit.on_its_way", b"k", message, Delivery(str))
    assert broker.serve(1) == 1
    broker.close()
    assert not broker.broken
