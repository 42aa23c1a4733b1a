"""A topic is a tenant's log: all of it, byte for byte and in its order, with what it takes to verify it."""

from __future__ import annotations

from typing import Any

from wardkey_core.log.checkpoint import fingerprint
from wardkey_core.log.merkle import leaf_hash

from tests.publisher.publishers import (
    Log,
    Publisher,
    first_ones,
    read,
    verified,
    wait_published,
    wait_until,
)
from tests.support.database import Database
from tests.support.kafka import Kafka, entries
from wardkey.audit import retention
from wardkey.publisher import topics


def test_log_is_published_as_sealed(log: Log, publisher: Publisher, kafka: Kafka) -> None:
    log.grow(3, 7000, 40)
    publisher.start()
    topic = wait_published(log.connection, log.tenant)
    log.grow(1, 200)
    assert wait_published(log.connection, log.tenant) == topic == "audit.acme"
    messages = read(kafka, topic)
    assert first_ones(messages) == log.ids
    assert [message.position for message in entries(messages)] == list(range(7244))
    assert {message.key for message in messages} == {str(log.tenant).encode()}
    leaves = b"".join(leaf_hash(message.value) for message in entries(messages))
    sealed = log.connection.execute(
        "select string_agg(leaf_hashes, '' order by first_position) from ward_internal.audit_batches"
        " where tenant_id = %s",
        [log.tenant],
    ).fetchone()
    assert sealed == (leaves,)
    covered = 0
    for message in messages:  # a checkpoint comes behind the last entry it covers
        if message.kind == "checkpoint":
            assert message.position <= covered
        else:
            covered = message.position + 1
    report = verified(messages, log.tenant, fingerprint(log.public_key))
    assert report.ok and report.entries == 7244 and report.checkpoints == 5, report
    entry = entries(messages)[700]
    entry.value = entry.value.replace(b"update", b"delete")
    assert not verified(messages, log.tenant, fingerprint(log.public_key)).ok
    assert publisher.stop() == 0


def test_altered_entry_is_not_published_and_named(log: Log, publisher: Publisher, kafka: Kafka) -> None:
    """The others are, and what stands in its place still makes the roots come out."""
    ids = log.grow(10)
    log.connection.execute("update ward_internal.audit_log set subject = 'mallory' where id = %s", [ids[4]])
    log.connection.execute("delete from ward_internal.audit_log where id = %s", [ids[5]])
    publisher.start()
    messages = entries(read(kafka, topic := wait_published(log.connection, log.tenant)))
    assert [message.kind for message in messages] == ["entry"] * 4 + ["missing"] * 2 + ["entry"] * 4
    assert first_ones(messages) == ids and b"mallory" not in b"".join(message.value for message in messages)
    assert f"{topic} has no content of the entry at position 4" in publisher.errors
    assert passed_over(log) == [{"topic": topic, "positions": [4, 5], "count": 2}]
    report = verified(kafka.read(topic), log.tenant)
    assert not report.ok and report.defect and report.defect.kind != "root", report


def test_entry_that_is_too_large_holds_up_nobody(database: Database, log: Log, kafka: Kafka) -> None:
    publisher = Publisher(database, kafka.servers, **{"message.max.bytes": "20000"})
    try:
        ids = log.grow(5) + log.grow(1, new='{"note": "' + "x" * 30_000 + '"}') + log.grow(5)
        publisher.start()
        messages = entries(read(kafka, wait_published(log.connection, log.tenant)))
        assert first_ones(messages) == ids
        assert [message.kind for message in messages] == ["entry"] * 5 + ["missing"] + ["entry"] * 5
        assert [told["positions"] for told in passed_over(log)] == [[5]]
    finally:
        publisher.remove()


def test_what_fails_again_and_again_is_told_until_it_goes_on(log: Log, publisher: Publisher) -> None:
    log.grow(3, 4)
    log.connection.execute(
        "create table public.taken as select * from ward_internal.audit_batches where first_position = 3"
    )
    log.connection.execute("delete from ward_internal.audit_batches where first_position = 3")
    publisher.start()
    wait_until(lambda: any(topic.failures > 1 for topic in topics.every(log.connection)))
    (topic,) = [topic for topic in topics.every(log.connection) if topic.failures]
    assert topic.tenant == log.tenant and "the order of the log ends at position" in (topic.trouble or "")
    log.connection.execute("insert into ward_internal.audit_batches select * from public.taken")
    wait_published(log.connection, log.tenant)
    assert {topic.trouble for topic in topics.every(log.connection)} == {None}


def passed_over(log: Log) -> list[dict[str, Any]]:
    """Return what the log says of entries that its topic has no content of."""
    query = "select detail from ward.events where tenant_id = %s and kind = 'not published' order by id"
    return [detail for (detail,) in log.connection.execute(query, [log.tenant])]


def test_topic_of_a_pruned_log_begins_where_the_log_does(
    log: Log, publisher: Publisher, kafka: Kafka
) -> None:
    log.put("e", "rotated", minute=-4_000_000)
    log.put("e", "retired", minute=-4_000_000)
    log.seal(-3_900_000)
    log.grow(3, 4)
    assert retention.prune(log.connection, log.tenant)["entries"] == 2
    publisher.start()
    messages = read(kafka, wait_published(log.connection, log.tenant))
    assert [message.position for message in entries(messages)] == list(range(2, 9))
    assert [message.position for message in messages if message.kind == "checkpoint"] == [2, 5, 9]
    log.grow(2)
    messages = read(kafka, wait_published(log.connection, log.tenant))
    assert [message.position for message in entries(messages)] == list(range(2, 11))
    assert "lost" not in publisher.errors
