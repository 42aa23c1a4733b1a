"""``wardkey kafka``: the publisher runs while Kafka is configured, and what it may read nobody else does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.cli import Wardkey
from tests.support.kafka import Kafka
from wardkey.doctor import Server, checks
from wardkey.embedded import Cluster, Home
from wardkey.publisher.config import Configuration

SECRET = "hunter2-and-more"


@pytest.fixture
def kafka() -> Iterator[Kafka]:
    kafka = Kafka(stored=True).start()
    yield kafka
    kafka.remove()


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def found_by_doctor(cluster: Cluster) -> list[str]:
    (check,) = (each for theme in checks().values() for each in theme if each.name == "published")
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        return [problem.detail for problem in check.run("", Server(connection, cluster.home)).problems]


def test_home_publishes_as_long_as_it_is_told_to(
    new_home: Callable[[], Home], kafka: Kafka, tmp_path: Path
) -> None:
    home = new_home()
    cluster, wardkey = Cluster(home, settings={"fsync": "off"}), Wardkey(home.path)
    properties = tmp_path / "kafka.properties"
    properties.write_text(f"# of the publisher\nsasl.password={SECRET}\nclient.id=ward\n")
    used = wardkey.json(
        "kafka", "use", kafka.servers, "--config", str(properties), "--topic-config", "retention.ms=-1"
    )
    assert used["properties"] == ["client.id", "sasl.password"] and not used["started"]
    assert wardkey.json("kafka", "show")["topic_config"] == ["retention.ms=-1"]
    file, directory = home.publisher / "kafka.json", home.publisher
    owner = home.publisher_user().uid
    assert {path.stat().st_uid for path in (file, directory)} == {owner}
    assert (file.stat().st_mode & 0o777, directory.stat().st_mode & 0o777) == (0o600, 0o700)

    cluster.start()
    process = cluster.publisher.process
    assert process and wardkey.json("status")["publisher"]["pid"] == process.pid
    assert Path(f"/proc/{process.pid}").stat().st_uid in (owner, 0)  # 0: it cannot be dumped
    assert f"Uid:\t{owner}\t" in Path(f"/proc/{process.pid}/status").read_text()
    assert not cluster.publisher.start(cluster.dsn(user="ward_publisher")), "there is one already"

    assert wardkey.json("tenant", "create", "acme")[0]["topic"] == "audit.acme"
    assert "audit.acme" in kafka.topics()
    wait_until(lambda: any(message.kind == "entry" for message in kafka.read("audit.acme")))
    status = wardkey.json("kafka", "status")
    acme = next(row for row in status["topics"] if row["tenant"] == "acme")
    assert status["at_work"] and acme["topic"] == "audit.acme" and acme["published"] > 0
    assert found_by_doctor(cluster) == []
    acls = wardkey("kafka", "acls", "--tenant", "acme", "--principal", "User:clinic").stdout.splitlines()
    assert len(acls) == 2 and all("User:clinic" in line and kafka.servers in line for line in acls)
    assert "audit.platform made" in wardkey("logs", "--only", "publisher").stdout

    wardkey("scribe", "readmit", "acme")
    wait_until(lambda: any(topic.startswith("audit.acme.") for topic in kafka.topics()))

    kafka.kill()
    made = wardkey("tenant", "create", "globex")
    assert "the publisher will make it" in made.stderr
    kafka.start()
    wait_until(lambda: "audit.globex" in kafka.topics())

    cluster.publisher.stop()
    assert not cluster.status().running
    wait_until(lambda: found_by_doctor(cluster) != [])
    assert "is not at work" in found_by_doctor(cluster)[0]
    cluster.start()
    wait_until(lambda: found_by_doctor(cluster) == [])

    process = cluster.publisher.process
    assert wardkey.json("kafka", "use", kafka.servers)["started"] and process and not process.alive
    assert SECRET not in file.read_text()
    wardkey("kafka", "off")
    assert cluster.publisher.process is None and not file.exists() and cluster.status().running
    assert found_by_doctor(cluster) == []
    assert wardkey.json("kafka", "status", code=3)["topics"]
    cluster.publisher.configure(Configuration(kafka.servers))
    assert cluster.restart_publisher()
    process = cluster.publisher.process
    wardkey("down")
    assert process and not process.alive
    written = b"".join(path.read_bytes() for path in home.log.iterdir())
    assert SECRET.encode() not in written
    assert not home.publisher_status.exists()


def test_what_makes_no_sense_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    wardkey = Wardkey(tmp_path / "home")
    properties = tmp_path / "kafka.properties"
    for text, servers, message in (
        ("", "nowhere", "not brokers"),
        (f"sasl.pasword={SECRET}", "127.0.0.1:1", "sasl.pasword"),
        (f"enable.idempotence={SECRET}", "127.0.0.1:1", "set by wardkey itself"),
    ):
        properties.write_text(text)
        said = wardkey("kafka", "use", servers, "--config", str(properties), code=1).stderr
        assert message in said and SECRET not in said
    assert not (tmp_path / "home").exists()
    assert "not configured" in wardkey("kafka", "show", code=1).stderr
    said = wardkey("--dsn", "host=/nowhere", "kafka", "run", code=1).stderr
    assert "wardkey kafka use" in said
    assert '"$schema"' in wardkey("kafka", "schema").stdout
