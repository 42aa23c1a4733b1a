"""Kafka as the publisher sees it. The only module that knows librdkafka (``pip install 'wardkey[kafka]'``).

librdkafka logs nothing: it would name hosts and, at some levels, more. What is wrong comes as errors, whose
text goes through ``Configuration.hide``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from ..errors import PublisherError
from .config import Configuration
from .messages import Message

__all__ = ["Broker", "Delivery", "import_client"]

_QUEUE: Final = 20_000  # messages that wait for the broker, at most
_QUEUE_KILOBYTES: Final = 64 << 10
_DEFAULTS: Final = {
    "client.id": "wardkey-publisher",
    "linger.ms": "5",
    "message.max.bytes": str(_QUEUE_KILOBYTES << 9),  # the broker has its own, smaller limit
    "reconnect.backoff.max.ms": "2000",
    "socket.keepalive.enable": "true",
    "topic.metadata.propagation.max.ms": "5000",
}
_OURS: Final = {
    "acks": "all",
    "enable.idempotence": True,
    # no message after one that failed, or the order would be another
    "enable.gapless.guarantee": True,
    "message.timeout.ms": 0,
    "queue.buffering.max.messages": _QUEUE,
    "queue.buffering.max.kbytes": _QUEUE_KILOBYTES,
    "log_level": 0,
}


def import_client() -> Any:
    """Import the client library, all of it. Raises PublisherError."""
    try:
        import confluent_kafka.admin
    except ImportError as error:
        raise PublisherError(
            f"Kafka needs a package that is not here ({error.name})",
            "install it with: pip install 'wardkey[kafka]'",
        ) from None
    return confluent_kafka


class Delivery:
    """What became of the messages for one topic, in their order: ``acknowledged`` of them, then ``failed``.

    ``failed``: the error's name (UNKNOWN_TOPIC_OR_PART, …); ``refused``: the same, of the one that was not
    even taken into the queue. None while all goes well. ``offset``: of the last acknowledged, if known.
    """

    __slots__ = ("_hide", "acknowledged", "failed", "offset", "refused", "text")

    def __init__(self, hide: Callable[[str], str]) -> None:
        self.acknowledged = 0
        self.offset = -1
        self.failed: str | None = None
        self.refused: str | None = None
        self.text = ""
        self._hide = hide

    def __call__(self, error: Any, message: Any) -> None:
        if self.failed is not None:
            return
        if error is None:
            self.acknowledged += 1
            self.offset = message.offset()
        else:
            self.failed, self.text = str(error.name()), self._hide(str(error.str()))

    def refuse(self, error: Any) -> None:
        self.refused, self.text = str(error.name()), self._hide(str(error.str()))


class Broker:
    """A producer for one configuration. ``trouble``: what is wrong with the connection, as far as known."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._kafka = import_client()
        self.trouble: str | None = None
        self.broken = False  # the producer has lost its place, and another one has to go on
        self._settings = {
            **_DEFAULTS,
            **configuration.properties,
            "bootstrap.servers": configuration.servers,
        }
        with self._errors("cannot be used like this"):
            settings = {**self._settings, **_OURS, "error_cb": self._heard}
            self._producer = self._kafka.Producer(settings)

    def cluster(self, seconds: float = 10) -> str:
        """Return the id of the cluster. Raises PublisherError, as soon as it is known why."""
        deadline = time.monotonic() + seconds
        with self._admin("cannot be reached") as admin:
            while True:
                try:
                    return str(admin.list_topics(timeout=min(2.0, seconds)).cluster_id or "")
                except self._kafka.KafkaException:
                    admin.poll(0)
                    if self.trouble or time.monotonic() > deadline:
                        raise

    def is_there(self) -> bool:
        """Say whether the cluster answers at all."""
        try:
            self.cluster(2)
        except PublisherError:
            return False
        return True

    def make(self, topic: str, seconds: float = 10) -> bool:
        """Make a topic; False when there is one already, or one whose name Kafka holds for too similar.

        Raises PublisherError.
        """
        new = self._kafka.admin.NewTopic(
            topic, 1, self._configuration.replication, config=dict(self._configuration.topic)
        )
        with self._admin(f"does not make topic {topic}") as admin:
            (done,) = admin.create_topics([new], request_timeout=seconds).values()
            try:
                done.result(seconds + 1)
            except self._kafka.KafkaException as error:
                if _name(error) in ("TOPIC_ALREADY_EXISTS", "TOPIC_EXCEPTION"):
                    return False
                raise
            return True

    def send(self, topic: str, key: bytes, message: Message, delivery: Delivery) -> bool:
        """Put a message into the queue. False: there is no room just now, or ``delivery`` tells why not."""
        try:
            self._producer.produce(
                topic, message.value, key, partition=0, headers=message.headers, on_delivery=delivery
            )
        except BufferError:
            if not len(self._producer):  # and never will be
                delivery.refuse(self._kafka.KafkaError(self._kafka.KafkaError.MSG_SIZE_TOO_LARGE))
            return False
        except self._kafka.KafkaException as error:
            delivery.refuse(error.args[0])
        return delivery.refused is None and delivery.failed is None

    def serve(self, seconds: float) -> int:
        """Hear what became of messages, for as long or until all are settled; return how many are not."""
        deadline = time.monotonic() + seconds
        while (left := len(self._producer)) and not self.broken:
            self._hear(self._producer.poll, max(0.0, min(0.1, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                break
        self._hear(self._producer.poll, 0)
        return left and len(self._producer)

    def close(self) -> None:
        """Forget what is in the queue. What is on its way may arrive all the same."""
        # not what is on its way: without that an idempotent producer has a gap, which is a fatal error
        self._producer.purge(in_flight=False)
        self._hear(self._producer.flush, 1)

    def _hear(self, run: Callable[[float], object], seconds: float) -> None:
        """Run what calls back. A fatal error of the client ends the producer: another one has to go on.

        It comes as an exception, or as a KafkaError that is none of Python's: only a bare except catches it.
        """
        try:
            run(seconds)
        except:  # noqa: E722
            error = sys.exc_info()[1]
            if isinstance(error, BaseException) and not isinstance(
                error, self._kafka.KafkaException | SystemError
            ):
                raise
            self.broken = True
            self.trouble = self._configuration.hide(str(error))

    def _heard(self, error: Any) -> None:
        self.broken = self.broken or error.fatal()
        self.trouble = self._configuration.hide(str(error.str()))

    @contextmanager
    def _admin(self, what: str) -> Iterator[Any]:
        with self._errors(what):
            admin = self._kafka.admin.AdminClient({**self._settings, "log_level": 0, "error_cb": self._heard})
            self.trouble = None
            try:
                yield admin
            finally:
                admin.poll(0)  # hears why

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._kafka.KafkaException as error:
            reason = self.trouble or self._configuration.hide(str(error.args[0].str()))
            raise PublisherError(f"Kafka {what}: {reason}") from None
        except (TypeError, ValueError, TimeoutError) as error:
            raise PublisherError(f"Kafka {what}: {type(error).__name__}", "look at its properties") from None


def _name(error: Any) -> str:
    return str(error.args[0].name())
