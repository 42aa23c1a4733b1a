"""Of two publishers of a database one works; the other waits, says so, and goes on when the first is gone."""

from __future__ import annotations

import pytest

from tests.publisher.publishers import Log, Publisher, first_ones, read, wait_published, wait_until
from tests.support.kafka import Kafka
from wardkey.errors import PublisherError
from wardkey.publisher import topics
from wardkey.publisher.messages import Mark


def test_second_one_waits_and_takes_over(log: Log, publisher: Publisher, kafka: Kafka) -> None:
    first = publisher.launch("first")
    log.grow(5)
    topic = wait_published(log.connection, log.tenant)
    second = publisher.launch("second")
    wait_until(lambda: "another publisher" in (publisher.status("second").get("trouble") or ""))
    log.grow(5)
    wait_published(log.connection, log.tenant)
    assert len(read(kafka, topic)) == 12
    first.kill()
    log.grow(5)
    wait_published(log.connection, log.tenant)
    assert first_ones(read(kafka, topic)) == log.ids
    assert second.poll() is None and publisher.status("second")["trouble"] is None


def test_position_that_another_one_moved_is_not_overwritten(log: Log) -> None:
    log.connection.execute(
        "insert into ward_internal.audit_topics (tenant_id, topic, cluster) values (%s, 'audit.acme', '')",
        [log.tenant],
    )
    (topic,) = topics.every(log.connection)
    topics.save(log.connection, topic, Mark(4, 0))
    with pytest.raises(PublisherError, match="another publisher"):
        topics.save(log.connection, topic, Mark(5, 5))
