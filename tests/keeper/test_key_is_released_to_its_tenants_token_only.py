"""No token of the tenant, no key: not for another tenant's, nor for a DBA who swaps rows (attack 42)."""

from __future__ import annotations

import base64
import os
import time
from uuid import UUID

import pytest
from wardkey_core.administration import Unsupported
from wardkey_core.envelope import class_key, commitment, key_aad
from wardkey_core.errors import CommitmentMismatch, InvalidToken, KeyRefused, TokenExpired

from tests.support import tokens
from tests.support.keepers import ACME, GLOBEX, Keeper, is_root, stranger_asks
from wardkey.embedded.issuer import EmbeddedIssuer
from wardkey.kms import KekRef, open_kms


@pytest.fixture
def keeper(shared_keeper: Keeper) -> Keeper:
    return shared_keeper


def test_the_right_token_gets_the_key_the_registry_committed_to(keeper: Keeper) -> None:
    made = keeper.ask(op="provision", tenant=ACME)
    assert made.keys() == {"version", "kek", "kek_version", "wrapped", "commitment"}
    names = ["identifier", "clinical"]
    asked = [*names, "note", "of_a_dba"]  # of which the role of the token gets those
    released = keeper.ask(op="release", tenant=ACME, token=keeper.token(), classes=asked, **made)
    assert released.keys() == {"classes", "masked", "search"} and sorted(released["classes"]) == sorted(names)
    keys = {base64.b64decode(released["classes"][name]) for name in names}
    assert {len(key) for key in keys} == {32} and len(keys) == 2
    kms = open_kms("local:", keeper.directory)
    kek = KekRef(made["kek"], made["kek_version"])
    dek = kms.unwrap(kek, base64.b64decode(made["wrapped"]), key_aad(UUID(ACME).bytes, 1, "default"))
    assert commitment(dek, UUID(ACME).bytes, 1) == base64.b64decode(made["commitment"])
    assert keys == {class_key(dek, UUID(ACME).bytes, 1, name) for name in names}
    with pytest.raises(CommitmentMismatch):
        keeper.ask(**{**keeper.provision(), "wrapped": made["wrapped"]})


def test_search_keys_are_those_of_classes_seen_in_the_clear(keeper: Keeper) -> None:
    made = keeper.ask(op="provision", tenant=ACME)
    asked = ["identifier", "quasi", "clinical", "note"]
    for role, seen in (("VIEWER", asked[:3]), ("ANALYST", ["clinical"])):
        token = keeper.token(role=role)
        released = keeper.ask(op="release", tenant=ACME, token=token, classes=asked, **made)
        assert sorted(released["search"]) == sorted(seen)
        assert not set(released["search"].values()) & set(released["classes"].values())
    assert released["masked"] == ["quasi"] and "quasi" in released["classes"]


def test_each_provision_makes_a_new_key_under_the_same_kek(keeper: Keeper) -> None:
    first, second = keeper.provision(), keeper.provision()
    assert (first["kek"], first["kek_version"]) == (second["kek"], second["kek_version"])
    assert keeper.ask(**first)["classes"]["clinical"] != keeper.ask(**second)["classes"]["clinical"]


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "cached"])
def test_another_tenants_token_gets_nothing(keeper: Keeper, warm: bool) -> None:
    request = keeper.provision(ACME)
    if warm:
        keeper.ask(**request)
    with pytest.raises(KeyRefused, match="another tenant"):
        keeper.ask(**{**request, "token": keeper.token(GLOBEX, "SUPER_ADMIN")})
    assert keeper.ask(**request)


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "cached"])
def test_no_token_gets_nothing(keeper: Keeper, warm: bool) -> None:
    request = keeper.provision()
    if warm:
        keeper.ask(**request)
    for token in ("", "x", "a.b.c"):
        with pytest.raises((KeyRefused, InvalidToken)):
            keeper.ask(**{**request, "token": token})
    without = {name: value for name, value in request.items() if name != "token"}
    with pytest.raises(KeyRefused):
        keeper.ask(**without)


def test_a_token_the_keepers_own_issuers_did_not_sign_gets_nothing(keeper: Keeper) -> None:
    request = keeper.provision()
    stranger = EmbeddedIssuer.open(keeper.base / "other", "other")
    impostor = EmbeddedIssuer.open(keeper.base / "impostor", "test")  # of the trusted name, with another key
    assert impostor.name == keeper.issuer.name
    for issuer in (stranger, impostor):
        with pytest.raises(InvalidToken):
            keeper.ask(**{**request, "token": issuer.sign_token(ACME, "dr.grey", "ADMIN")})


def test_an_expired_token_gets_nothing(new_keeper: Keeper) -> None:
    keeper = new_keeper.start()
    document = tokens.document(keys=[tokens.jwk("EdDSA")])
    keeper.trust(document)
    now = int(time.time())
    request = keeper.provision() | {"token": tokens.good(tenant_id=ACME, iat=now, nbf=now, exp=now + 60)}
    assert keeper.ask(**request)
    expired = tokens.good(tenant_id=ACME, iat=now - 200, nbf=now - 200, exp=now - 100)
    with pytest.raises(TokenExpired):
        keeper.ask(**{**request, "token": expired})


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "cached"])
def test_a_wrapped_key_of_another_tenant_is_not_opened(keeper: Keeper, warm: bool) -> None:
    acme, globex = keeper.provision(ACME), keeper.provision(GLOBEX)
    if warm:
        keeper.ask(**globex)
    as_acme = {"tenant": ACME, "token": keeper.token(ACME)}
    with pytest.raises(KeyRefused):
        keeper.ask(**{**globex, **as_acme})
    with pytest.raises(KeyRefused):
        keeper.ask(**{**acme, "wrapped": globex["wrapped"]})
    with pytest.raises(KeyRefused):
        keeper.ask(**{**acme, "kek": globex["kek"]})
    assert keeper.ask(**acme)["classes"]["clinical"] != keeper.ask(**globex)["classes"]["clinical"]


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"kek_version": "2"},
        {"kek": "local:0b6f0000-0000-4000-8000-00000000000f"},
        {"kek": "local:../root.key"},
        {"kek": "gcpkms://projects/p"},
        {"wrapped": base64.b64encode(bytes(61)).decode()},
        {"wrapped": base64.b64encode(b"\1").decode()},
    ],
    ids=str,
)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "cached"])
def test_a_key_opens_only_as_it_was_wrapped(keeper: Keeper, changes: dict[str, object], warm: bool) -> None:
    request = keeper.provision()
    if warm:
        keeper.ask(**request)
    with pytest.raises(KeyRefused):
        keeper.ask(**{**request, **changes})
    assert keeper.ask(**request)


@pytest.mark.parametrize("place", [0, 1, 12, 13, 44, 45, 60])
def test_a_changed_wrapped_key_is_not_opened(keeper: Keeper, place: int) -> None:
    request = keeper.provision()
    wrapped = bytearray(base64.b64decode(request["wrapped"]))
    wrapped[place] ^= 1
    with pytest.raises(KeyRefused):
        keeper.ask(**{**request, "wrapped": base64.b64encode(wrapped).decode()})


@pytest.mark.parametrize(
    "tenant", ["acme", ACME.upper(), f"{{{ACME}}}", ACME.replace("-", ""), "../../etc/passwd", "", None, 1]
)
def test_tenants_are_canonical_uuids(keeper: Keeper, tenant: object) -> None:
    before = sorted(keeper.directory.rglob("*"))
    with pytest.raises(Unsupported):
        keeper.ask(op="provision", tenant=tenant)
    assert sorted(keeper.directory.rglob("*")) == before


@pytest.mark.skipif(not is_root(), reason="only root can become another user")
def test_another_os_user_gets_nothing(new_keeper: Keeper) -> None:
    keeper = new_keeper.start()
    request = keeper.provision()
    assert keeper.ask(**request)
    keeper.base.chmod(0o711)
    assert stranger_asks(keeper, request) is None  # the socket's mode keeps him out
    keeper.socket.chmod(0o666)
    for asked in (request, {"op": "status"}, {"op": "provision", "tenant": ACME}):
        answer = stranger_asks(keeper, asked)  # and where it does not, the kernel says who he is
        assert answer and answer["ok"] is False and answer["sqlstate"] == "WK103"
    assert keeper.log_lines()[-1]["uid"] == 65534


@pytest.mark.skipif(not is_root(), reason="only root can become another user")
def test_an_allowed_os_user_is_answered(new_keeper: Keeper) -> None:
    keeper = new_keeper.start("--allow-uid", "65534", "--socket-group", "65534")
    keeper.base.chmod(0o711)
    answer = stranger_asks(keeper, keeper.provision())
    assert answer and answer["ok"] is True and answer["classes"]["clinical"]
    assert keeper.socket.stat().st_mode & 0o777 == 0o660
    assert keeper.socket.stat().st_gid == 65534
    assert os.geteuid() == 0 and keeper.status()
