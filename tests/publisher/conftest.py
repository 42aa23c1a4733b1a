from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.publisher.publishers import Log, Publisher
from tests.support.database import Connection, Database
from tests.support.kafka import Kafka


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    """A broker that remembers nothing."""
    kafka = Kafka().start()
    yield kafka
    kafka.remove()


@pytest.fixture
def publisher(database: Database, kafka: Kafka) -> Iterator[Publisher]:
    """A publisher for that broker; it is not started yet."""
    publisher = Publisher(database, kafka.servers)
    yield publisher
    if publisher.processes:
        print(publisher.errors)
    publisher.remove()


@pytest.fixture
def log(postgresql: Connection) -> Log:
    """The log of tenant acme, empty."""
    postgresql.autocommit = True
    return Log(postgresql, "acme")
