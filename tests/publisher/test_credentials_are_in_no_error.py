"""What Kafka's credentials are is said nowhere; what is wrong with a configuration is, and how to mend it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.publisher.publishers import Publisher, wait_until
from tests.support.database import Database
from tests.support.kafka import Kafka
from wardkey.errors import PublisherError
from wardkey.publisher import config
from wardkey.publisher.broker import Broker, import_client
from wardkey.publisher.config import Configuration, parse_properties

SECRET = "hunter2-and-more"
SASL = {
    "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": "wardkey-publisher",
    "sasl.password": SECRET,
}  # fmt: skip


def test_refused_publisher_says_so_and_no_more(database: Database, kafka: Kafka) -> None:
    publisher = Publisher(database, kafka.servers, **SASL)
    try:
        process = publisher.start().processes[-1]
        wait_until(lambda: "Kafka" in (publisher.status().get("trouble") or ""))
        said = publisher.errors + str(publisher.status())
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text()
        assert SECRET not in said + arguments and "wardkey-publisher" not in said
        assert publisher.stop() == 0
    finally:
        publisher.remove()


@pytest.mark.parametrize(
    "properties",
    [{"sasl.pasword": SECRET}, {"ssl.key.pem": SECRET, "security.protocol": "SSL"}, {"acks": SECRET}],
)
def test_error_names_the_property_and_not_its_value(properties: dict[str, str]) -> None:
    with pytest.raises(PublisherError) as caught:
        Broker(Configuration("127.0.0.1:1", properties=properties))
    assert SECRET not in f"{caught.value.message} {caught.value.hint}"
    assert next(iter(properties)) in caught.value.message
    assert SECRET not in repr(Configuration("127.0.0.1:1", properties={"sasl.password": SECRET}))


def test_text_that_has_a_credential_is_told_without_it() -> None:
    said = Configuration("127.0.0.1:1", properties=SASL).hide(f"user wardkey-publisher with {SECRET}, PLAIN")
    assert said == "user *** with ***, PLAIN"


@pytest.mark.parametrize("text", [f"sasl.password {SECRET}", f"=\n{SECRET}", f"a={SECRET}\na=1"])
def test_line_that_is_no_property_is_named_by_its_number(text: str) -> None:
    with pytest.raises(PublisherError, match=r"line [12]") as caught:
        parse_properties(text)
    assert SECRET not in caught.value.message
    assert parse_properties("# no\n\n a.b = c=d ") == {"a.b": "c=d"}


@pytest.mark.parametrize("servers", ["", "host", "host:", "a:1,,b:2", "user:secret@host:1", "http://host:1"])
def test_brokers_are_host_and_port(servers: str) -> None:
    with pytest.raises(PublisherError, match="not brokers"):
        Configuration(servers)


def test_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "kafka.json"
    assert config.read(file) is None
    written = Configuration("[::1]:9092,b:1", 3, SASL, {"retention.ms": "-1"})
    config.write(file, written)
    assert config.read(file) == written and file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    with pytest.raises(PublisherError, match="open to other users"):
        config.read(file)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("{", "not JSON"),
        ('{"servers": "a:1", "servers": "b:1"}', "twice"),
        ('{"servers": 1}', "servers"),
        (json.dumps({"servers": "a:1", "properties": {"sasl.password": [SECRET]}}), "properties"),
        (json.dumps({"servers": "a:1", "more": SECRET}), "more"),
    ],
)
def test_damaged_file_is_refused_and_says_where(tmp_path: Path, content: str, wrong: str) -> None:
    file = tmp_path / "kafka.json"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(PublisherError, match=f"is damaged: .*{wrong}") as caught:
        config.read(file)
    assert SECRET not in caught.value.message


def test_missing_client_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "confluent_kafka"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    with pytest.raises(PublisherError) as caught:
        import_client()
    assert caught.value.hint == "install it with: pip install 'wardkey[kafka]'"
