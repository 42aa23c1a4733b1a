"""Where Kafka is and how it is spoken to: ``kafka.json`` in the publisher's directory, with credentials."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct
from wardkey_core.wire import parse_json

from ..daemon.files import UnsafeFileError, read_guarded, write_atomically
from ..errors import PublisherError

__all__ = ["CONFIGURATION_FILE", "Configuration", "parse_properties", "read", "write"]

CONFIGURATION_FILE: Final = "kafka.json"

_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_NAME = re.compile(r"[a-z0-9_.]+")
_HARMLESS = re.compile(r"^client\.|protocol|mechanism|location|\.(ms|type|codec|bytes|size|messages)$")
_OURS = frozenset({
    "acks", "bootstrap.servers", "debug", "delivery.report.only.error", "delivery.timeout.ms",
    "enable.gapless.guarantee", "enable.idempotence", "log_level", "message.timeout.ms",
    "metadata.broker.list", "plugin.library.paths", "queue.buffering.max.kbytes",
    "queue.buffering.max.messages", "queuing.strategy", "request.required.acks", "transactional.id",
})  # fmt: skip
"""Nothing is lost or out of order, no queue grows and no log tells, because these are as we set them."""


class Configuration(Struct, frozen=True, forbid_unknown_fields=True):
    """``servers``: HOST:PORT, comma-separated. ``replication``: of new topics, -1 as the cluster has it.

    ``properties``: of librdkafka; ``topic``: of each topic that is made. Raises PublisherError.
    """

    servers: str
    replication: int = -1
    properties: dict[str, str] = {}
    topic: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Configuration({self.servers!r})"  # properties have credentials

    def __post_init__(self) -> None:
        if not all(_SERVER.fullmatch(server) for server in self.servers.split(",")):
            raise PublisherError("these are not brokers", "HOST:PORT, several with commas between them")
        if not -1 <= self.replication < 1 << 15 or self.replication == 0:
            raise PublisherError(
                "no such replication factor", "a number of brokers, or -1: the cluster's default"
            )
        for name in (*self.properties, *self.topic):
            if not _NAME.fullmatch(name):
                raise PublisherError(f"not the name of a property: {name[:60]!r}", "a line is: name=value")
        if taken := sorted(_OURS & set(self.properties)):
            raise PublisherError(
                f"{taken[0]} is set by wardkey itself: what it promises rests on it",
                "leave the line out; brokers are the argument",
            )

    def hide(self, text: str) -> str:
        """Return ``text`` without the value of any property that may be a credential."""
        for name, value in self.properties.items():
            if len(value) > 3 and not _HARMLESS.search(name):
                text = text.replace(value, "***")
        return text


def parse_properties(text: str) -> dict[str, str]:
    """Return the lines ``name=value``; blank ones and those that begin with # say nothing.

    Raises PublisherError, which names the line and no value.
    """
    properties: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not _NAME.fullmatch(name) or name in properties:
            raise PublisherError(
                f"line {number} of the configuration is not a property", "name=value, each name once"
            )
        properties[name] = value
    return properties


def read(path: Path) -> Configuration | None:
    """Return what the file says, None where there is none. Raises PublisherError."""
    try:
        return msgspec.convert(parse_json(read_guarded(path, secret=True)), Configuration)
    except FileNotFoundError:
        return None
    except UnsafeFileError as error:
        raise PublisherError(str(error)) from None
    except msgspec.ValidationError as error:  # its text names types and members, no value
        wrong = str(error)
    except ValueError:
        wrong = "it is not JSON, or has a member twice"
    raise PublisherError(f"{path} is damaged: {wrong}", "write it again: wardkey kafka use HOST:PORT")


def write(path: Path, configuration: Configuration, owner: tuple[int, int] | None = None) -> None:
    """Write the file, for its owner only."""
    data = msgspec.json.format(msgspec.json.encode(configuration), indent=2) + b"\n"
    write_atomically(path, data, owner=owner)
