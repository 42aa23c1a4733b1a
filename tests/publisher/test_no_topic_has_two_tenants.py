"""A topic is one tenant's for good, whatever happens to tenants, slugs, clusters and other databases."""

from __future__ import annotations

from uuid import UUID

from tests.publisher.publishers import Log, Publisher, first_ones, topic_of, wait_published, wait_until
from tests.support.database import Connection, Database
from tests.support.kafka import Kafka
from wardkey.identity import issuers
from wardkey.publisher.topics import names


def topic_made(connection: Connection, tenant: UUID) -> str:
    wait_until(lambda: topic_of(connection, tenant) is not None)
    return (topic_of(connection, tenant) or ("",))[0]


def tenants_in(kafka: Kafka, topic: str) -> set[bytes]:
    return {message.key for message in kafka.read(topic)}


def test_every_tenant_has_its_own(database: Database, log: Log, publisher: Publisher, kafka: Kafka) -> None:
    globex = Log(log.connection, "globex")
    log.grow(10)
    globex.grow(20)
    publisher.start()
    made = database.new_tenant()
    assert topic_made(log.connection, database.tenant_id(made)) == f"audit.{made}"
    for each in (log, globex):
        topic = wait_published(log.connection, each.tenant)
        assert tenants_in(kafka, topic) == {str(each.tenant).encode()}
    assert set(kafka.topics()) >= {"audit.platform", "audit.acme", "audit.globex", f"audit.{made}"}


def test_slug_that_is_used_again_leads_elsewhere(
    database: Database, postgresql: Connection, publisher: Publisher, kafka: Kafka
) -> None:
    postgresql.autocommit = True
    publisher.start()
    slug = database.new_tenant()
    before = database.tenant_id(slug)
    log = Log(postgresql, slug)
    log.grow(3)
    first = wait_published(postgresql, before)
    postgresql.execute("select ward.drop_tenant(%s, %s, true)", [slug, slug])
    database.new_tenant(slug)
    after = issuers.tenant_id(postgresql, slug)
    Log(postgresql, slug).grow(4)
    second = wait_published(postgresql, after)
    assert (first, second) == (f"audit.{slug}", f"audit.{slug}.{after.hex[:8]}")
    assert tenants_in(kafka, first) == {str(before).encode()}
    assert tenants_in(kafka, second) == {str(after).encode()}


def test_last_entries_of_a_tenant_that_is_shredded_are_published(
    database: Database, postgresql: Connection, publisher: Publisher, kafka: Kafka
) -> None:
    postgresql.autocommit = True
    slug = database.new_tenant()
    log = Log(postgresql, slug)
    log.grow(3)
    publisher.start()
    topic = wait_published(postgresql, log.tenant)
    publisher.stop()
    code = postgresql.execute("select ward_internal.shredding_facts(%s) ->> 'code'", [slug]).fetchone()
    assert code
    postgresql.execute("select ward_internal.begin_shredding(%s, %s)", [slug, code[0]])
    postgresql.execute("""select ward_internal.finish_shredding(%s, '{"certificate": true}')""", [slug])
    query = "select id from ward_internal.audit_log where tenant_id = %s and not id = any(%s) order by id"
    last = [id_ for (id_,) in postgresql.execute(query, [log.tenant, log.ids])]
    assert last
    log._waiting = last
    log.seal(9)
    publisher.start()
    assert wait_published(postgresql, log.tenant) == topic
    assert [message.value.count(b'"operation":"shredded"') for message in kafka.read(topic)][-2:] == [1, 0]


def test_topic_that_was_there_before_is_not_taken(log: Log, publisher: Publisher, kafka: Kafka) -> None:
    """It may be another database's."""
    kafka.make_topic("audit.acme")
    log.grow(3)
    publisher.start()
    assert wait_published(log.connection, log.tenant) == f"audit.acme.{log.tenant.hex[:8]}"
    assert kafka.read("audit.acme") == []


def test_history_that_begins_again_has_a_topic_of_its_own(
    log: Log, publisher: Publisher, kafka: Kafka
) -> None:
    """After a restore, that is: ``wardkey scribe readmit`` forgets the topic."""
    log.grow(3)
    publisher.start()
    first = wait_published(log.connection, log.tenant)
    log.connection.execute("delete from ward_internal.audit_topics where tenant_id = %s", [log.tenant])
    log.grow(2)
    second = wait_published(log.connection, log.tenant)
    assert (first, second) == ("audit.acme", f"audit.acme.{log.tenant.hex[:8]}")
    assert first_ones(kafka.read(second)) == log.ids


def test_names_of_two_tenants_are_never_the_same() -> None:
    one, other = UUID(int=1 << 96), UUID(int=2 << 96)
    assert names(one, "acme")[0] == names(other, "acme")[0]  # who makes it first has it
    assert not set(names(one, "acme")[1:]) & set(names(other, "acme")[1:])
    assert not set(names(one, None)) & set(names(one, "gone")[:1])
    assert names(UUID(int=0), None)[0] == "audit.platform"
