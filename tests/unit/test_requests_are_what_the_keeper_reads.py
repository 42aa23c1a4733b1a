"""Whatever ``wardkey_core.wire`` can ask for, the keeper reads, member by member."""

from __future__ import annotations

import json
from uuid import UUID

import msgspec
import pytest
from wardkey_core import wire
from wardkey_core.administration import Unsupported
from wardkey_core.errors import KeyRefused

from wardkey.keeper import requests
from wardkey.keeper.requests import parse_request

TENANT, PLATFORM = "0b6f0000-0000-4000-8000-00000000000a", str(UUID(int=0))
KEY = wire.key_members(3, "local:x", "1", b"wrapped")
DERIVED = wire.key_members(3, "local:x", "1", b"wrapped", commitment=b"c" * 32, master=2, salt=b"s" * 32)
COMMITTED = wire.key_members(3, "local:x", "1", b"wrapped", commitment=b"c" * 32)
ALL = [
    wire.release(TENANT, COMMITTED, "token", ["clinical"]),
    wire.release(TENANT, DERIVED, "token", ["clinical", "of_a_dba"]),
    wire.cache(TENANT, COMMITTED, "token"),
    wire.cache(TENANT, DERIVED, "token"),
    wire.provision(TENANT, 1),
    wire.provision(TENANT, 1, region="eu-de"),
    wire.rewrap(TENANT, COMMITTED | {"region": "eu-de"}),
    wire.manage_kek(TENANT, "create", "eu-de"),
    wire.provision(TENANT, 2, "local:x", "1"),
    wire.derive(TENANT, 4, KEY),
    wire.rewrap(TENANT, COMMITTED),
    wire.rewrap(TENANT, DERIVED, "local:y", "2"),
    wire.reseal(TENANT, 3, [DERIVED], {"clinical": 3}, 100),
    wire.reseal(TENANT, 3, [DERIVED], {"clinical": 3}, 100, {TENANT: [("range/1", "number/1", "0.1")]}),
    *(wire.manage_kek(TENANT, action) for action in ("create", "rotate", "versions", "destroy_all")),
    wire.manage_kek(TENANT, "destroy_all", managed=["own/0", "vault"]),
    *(
        wire.manage_kek(TENANT, action, kek="local:x", kek_version="1")
        for action in ("disable", "leave", "destroy")
    ),
    wire.tombstone(TENANT, "acme", 1),
    wire.tombstone(TENANT, "acme"),
    wire.certify(TENANT, "a statement\n"),
    wire.report(PLATFORM, "0" * 64),
    wire.checkpoint(TENANT),
    wire.checkpoint(PLATFORM, "a log", statement="a statement\n"),
    wire.checkpoint(TENANT, readmit=True),
    wire.grant(
        TENANT,
        "request",
        "token",
        id=TENANT,
        classes=["note"],
        minutes=5,
        reason="0" * 64,
        emergency=True,
    ),
    wire.grant(TENANT, "approve", "token", id=TENANT, reason="0" * 64),
    *(wire.grant(TENANT, action, "token", id=TENANT) for action in ("deny", "end")),
    *(wire.grant(TENANT, action, "token") for action in ("allow", "forbid")),
    wire.lease(TENANT, PLATFORM, "token"),
    wire.lease(TENANT, PLATFORM, "token", wire.settled("0" * 32, 2, [b"12345678"]), b"12345678"),
    wire.settle(TENANT, wire.settled("0" * 32, 0, [])),
    wire.usage(TENANT),
    wire.logins(TENANT, "end", token="token"),
    *(wire.logins(TENANT, action, issuer="i", subject="s") for action in ("end", "lift")),
    wire.logins(TENANT, "list"),
    wire.status(),
]


@pytest.mark.parametrize("message", ALL, ids=lambda message: json.dumps(message)[:60])
def test_each_request_is_read_as_it_was_made(message: dict[str, object]) -> None:
    read = msgspec.to_builtins(parse_request(wire.frame(message)[wire.HEADER_LENGTH :]))
    assert message.items() <= read.items() or message["op"] == "reseal"
    if message["op"] == "reseal":
        assert DERIVED.items() <= read["keys"][0].items()
    assert all(read[name] in (None, "", False, [], 1, "default") for name in read.keys() - message.keys())


def test_all_of_them_are_tried() -> None:
    assert {str(message["op"]) for message in ALL} == requests._REQUESTS.keys()


@pytest.mark.parametrize("message", ALL, ids=lambda message: json.dumps(message)[:60])
def test_no_member_is_null_unknown_or_shown(message: dict[str, object]) -> None:
    for change in ({"more": "SECRET"}, *({name: None} for name in message if name != "op")):
        with pytest.raises(Unsupported) as caught:
            parse_request(json.dumps(message | change).encode())
        assert "SECRET" not in str(caught.value)
        assert caught.value.__cause__ is caught.value.__context__ is None


def test_an_answer_is_what_it_carries_or_its_error() -> None:
    refused = wire.parse_answer(json.dumps(wire.refusal(KeyRefused("no", "a hint"))).encode())
    with pytest.raises(KeyRefused) as caught:
        wire.granted(refused)
    assert (caught.value.message, caught.value.hint) == ("no", "a hint")
    assert wire.granted({"ok": True, "dek": "eA=="}) == {"dek": "eA=="}
