"""The commands that let each principal do what it has to in a real cluster, and nothing else.

They are printed for ``kafka-acls.sh``, to be read and run by Kafka's administrator; wardkey's own
principal may not change ACLs. A cluster that allows what no ACL forbids (``allow.everyone.if.no.acl.found``)
keeps no tenant from another's topic.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from ..errors import PublisherError
from .topics import PREFIX

__all__ = ["PUBLISHER", "group_prefix", "of_publisher", "of_tenant", "principal_of"]

PUBLISHER: Final = "User:wardkey-publisher"
_PRINCIPAL: Final = re.compile(r"[A-Za-z]+:[^*\s'\"]+")


def principal_of(topic: str) -> str:
    """Return the principal that reads the topic, unless told otherwise: no two topics have the same."""
    return f"User:{topic}"


def group_prefix(topic: str) -> str:
    """Return what the names of the topic's consumer groups begin with.

    No topic has a hyphen in its name, so none of these begins with another.
    """
    return f"{topic}-"


def of_publisher(servers: str, principal: str = PUBLISHER) -> Iterator[str]:
    """Yield the commands for wardkey's own principal. Raises PublisherError."""
    allow = ["--operation", "Create", "--operation", "Describe", "--operation", "Write"]
    yield _command(servers, principal, [*allow, "--topic", PREFIX, "--resource-pattern-type", "prefixed"])
    yield _command(servers, principal, ["--operation", "IdempotentWrite", "--cluster"])


def of_tenant(servers: str, topic: str, principal: str | None = None) -> Iterator[str]:
    """Yield the commands for the principal of a tenant. Raises PublisherError."""
    who = principal or principal_of(topic)
    allow = ["--operation", "Read", "--operation", "Describe"]
    yield _command(servers, who, [*allow, "--topic", topic, "--resource-pattern-type", "literal"])
    group = ["--group", group_prefix(topic), "--resource-pattern-type", "prefixed"]
    yield _command(servers, who, ["--operation", "Read", *group])


def _command(servers: str, principal: str, words: Sequence[str]) -> str:
    if not _PRINCIPAL.fullmatch(principal):
        raise PublisherError(
            f"not a principal for one: {principal!r}", "it is TYPE:NAME, such as User:clinic; * is everybody"
        )
    start = ["kafka-acls.sh", "--bootstrap-server", servers, "--command-config", "admin.properties"]
    return shlex.join([*start, "--add", "--allow-principal", principal, *words])
