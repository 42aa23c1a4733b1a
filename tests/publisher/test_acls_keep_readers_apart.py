"""The ACLs that are printed let the publisher write and each reader read its own, and nothing else."""

from __future__ import annotations

import shlex
from itertools import permutations
from uuid import UUID

import pytest

from wardkey.errors import PublisherError
from wardkey.publisher import acls
from wardkey.publisher.topics import names

SERVERS = "kafka:9092"


def parsed(command: str) -> dict[str, list[str]]:
    """Return the options of a command with their values."""
    options: dict[str, list[str]] = {}
    for word in shlex.split(command)[1:]:
        if word.startswith("--"):
            values = options.setdefault(word, [])
        else:
            values.append(word)
    return options


def test_publisher_makes_and_writes_topics_of_the_log_only() -> None:
    topics, idempotent = map(parsed, acls.of_publisher(SERVERS))
    assert topics["--operation"] == ["Create", "Describe", "Write"]
    assert topics["--topic"] == ["audit."] and topics["--resource-pattern-type"] == ["prefixed"]
    assert idempotent["--operation"] == ["IdempotentWrite"] and idempotent["--cluster"] == []
    for command in (topics, idempotent):
        assert command["--allow-principal"] == ["User:wardkey-publisher"]


def test_reader_reads_its_own_topic_only() -> None:
    topic, group = map(parsed, acls.of_tenant(SERVERS, "audit.acme"))
    assert topic["--operation"] == ["Read", "Describe"] and group["--operation"] == ["Read"]
    assert topic["--topic"] == ["audit.acme"] and topic["--resource-pattern-type"] == ["literal"]
    assert group["--group"] == ["audit.acme-"] and group["--resource-pattern-type"] == ["prefixed"]
    assert topic["--allow-principal"] == group["--allow-principal"] == ["User:audit.acme"]


def test_groups_and_principals_of_two_topics_do_not_meet() -> None:
    one, other = UUID(int=0xABCD << 96), UUID(int=0xEF << 96)
    topics = {name for slug in ("a", "ab", "a_b", "gone", None) for name in names(one, slug)[:-1]}
    topics |= {name for slug in ("a", "ab", "a_b", "gone", None) for name in names(other, slug)[:-1]}
    for first, second in permutations(topics, 2):
        assert not acls.group_prefix(second).startswith(acls.group_prefix(first))
        assert acls.principal_of(first) != acls.principal_of(second)


@pytest.mark.parametrize("principal", ["User:*", "acme", "User:", "User:a b", "User:a'; rm -rf /"])
def test_principal_is_one(principal: str) -> None:
    for commands in (acls.of_publisher(SERVERS, principal), acls.of_tenant(SERVERS, "audit.a", principal)):
        with pytest.raises(PublisherError, match="not a principal"):
            list(commands)
