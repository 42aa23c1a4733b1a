"""Who may use keys may not end them: that takes root, the keeper's own user, or one of --admin-uid."""

from __future__ import annotations

import base64
import os
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from wardkey_core.errors import KeeperUnavailable, KeyDestroyed, KeyRefused

from tests.kms.test_keeper_releases_keys_of_every_kms import WATCHED
from tests.support.keepers import ACME, GLOBEX, Keeper, is_root, stranger_asks

BACKEND, OPERATOR = 65533, 65532
ENDING: list[dict[str, Any]] = [
    {"op": "kek", "action": "disable", "kek": f"local:{ACME}", "kek_version": "1"},
    {"op": "kek", "action": "destroy", "kek": f"local:{ACME}", "kek_version": "1"},
    {"op": "tombstone", "name": "acme", "version": 1},
    {"op": "shred", "name": "acme"},
    {"op": "kek", "action": "destroy_all"},
    {"op": "certify", "statement": "all is gone"},
    {"op": "report", "digest": "0" * 64},
    {"op": "logins", "action": "end", "issuer": "i", "subject": "s"},
]
CERTIFICATE = b"wardkey/1 certificate of destruction\n"


@pytest.fixture
def shared(new_keeper: Keeper) -> Keeper:
    """A keeper that backends (one uid) and an operator (another) can reach, run by a third."""
    if not is_root():
        pytest.skip("needs root")
    keeper = new_keeper
    keeper.base.chmod(0o777)
    for path in (keeper.directory, *keeper.directory.rglob("*")):
        os.chown(path, 65534, 65534)
    options = ("--run-as", "65534:65534", "--allow-uid", "0", str(BACKEND), "--admin-uid", str(OPERATOR))
    keeper.start(*options, program=("-c", WATCHED))
    keeper.socket.chmod(0o666)
    return keeper


def test_a_backends_user_is_refused_and_it_is_logged(shared: Keeper) -> None:
    one = shared.key()
    shared.ask(op="kek", tenant=ACME, action="rotate")
    for request in ENDING:
        answer = stranger_asks(shared, {"tenant": ACME, **request}, uid=BACKEND)
        assert answer and answer["sqlstate"] == "WK103" and "--admin-uid" in answer["hint"]
        assert (line := shared.log_lines()[-1])["outcome"] == "refused" and line["uid"] == BACKEND
    assert shared.class_key(one) and shared.status()["ledger"] == 0
    for action in ("create", "rotate", "versions"):
        request = {"op": "kek", "tenant": ACME, "action": action}
        assert (stranger_asks(shared, request, uid=BACKEND) or {})["ok"] is True


@pytest.mark.parametrize("uid", [OPERATOR, 0, 65534], ids=["--admin-uid", "root", "its own"])
def test_an_administrator_may(shared: Keeper, uid: int) -> None:
    shared.key()
    shared.ask(op="kek", tenant=ACME, action="rotate")
    for request in ENDING:
        answer = stranger_asks(shared, {"tenant": ACME, **request}, uid=uid)
        assert answer and answer["ok"] is True, answer
    assert [line["op"] for line in shared.log_lines()[-len(ENDING) :]] == [
        *("kek disable", "kek destroy", "tombstone", "shred", "kek destroy_all", "certify", "report"),
        "logins end",
    ]
    answer = stranger_asks(shared, {"op": "shred", "tenant": GLOBEX, "name": "globex"}, uid=1)
    assert answer and answer["ok"] is False
    assert shared.status()["ledger"] == 2
    assert "IMPORT" not in shared.errors and "OPEN" not in shared.errors, shared.errors


def test_keks_live_and_end(keeper: Keeper) -> None:
    def kek(action: str, **more: Any) -> dict[str, Any]:
        return keeper.ask(op="kek", tenant=ACME, action=action, **more)

    def states() -> list[str]:
        return [version["state"] for version in kek("versions")["versions"]]

    assert states() == []
    first = kek("create")
    assert kek("create") == first == {"kek": f"local:{ACME}", "kek_version": "1"}
    key = keeper.key()
    second = kek("rotate")
    assert states() == ["enabled", "enabled"] and keeper.class_key(key)
    with pytest.raises(KeyRefused, match="refused") as caught:
        kek("destroy", **second)
    assert "orchestrator" in str(caught.value.hint)
    for _ in range(2):
        kek("disable", **first)
    assert states() == ["disabled", "enabled"]
    for _ in range(2):
        kek("destroy", **first)
    assert states() == ["destroyed", "enabled"]
    version = kek("versions")["versions"][0]
    assert version["created_at"] <= version["destroyed_at"]
    keeper.stop()
    keeper.start()
    with pytest.raises(KeyRefused):
        keeper.class_key(key)


def test_a_certificate_is_signed_for_a_shredded_tenant_only(keeper: Keeper) -> None:
    statement = "tenant acme: 3 tables, 4711 rows – destroyed"
    with pytest.raises(KeyRefused, match="not shredded"):
        keeper.ask(op="certify", tenant=ACME, statement=statement)
    keeper.ask(op="tombstone", tenant=ACME, name="acme", version=1)
    with pytest.raises(KeyRefused, match="not shredded"):
        keeper.ask(op="certify", tenant=ACME, statement=statement)
    assert keeper.status()["public_key"] is None
    keeper.ask(op="shred", tenant=ACME, name="acme")
    signed = keeper.ask(op="certify", tenant=ACME, statement=statement)
    public_key = Ed25519PublicKey.from_public_bytes(base64.b64decode(signed["public_key"]))
    signature = base64.b64decode(signed["signature"])
    public_key.verify(signature, CERTIFICATE + statement.encode())
    for wrong in (CERTIFICATE + b"x", statement.encode()):
        with pytest.raises(InvalidSignature):
            public_key.verify(signature, wrong)
    assert keeper.stop() == 0
    keeper.start()
    assert keeper.status()["public_key"] == signed["public_key"]
    assert keeper.ask(op="certify", tenant=ACME, statement=statement) == signed


def test_the_signing_key_is_guarded(keeper: Keeper) -> None:
    keeper.ask(op="shred", tenant=ACME, name="acme")
    keeper.ask(op="certify", tenant=ACME, statement="x")
    path = keeper.directory / "signing.key"
    key = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600 and len(key) == 32
    path.chmod(0o640)
    for content in (key, b"short"):
        with pytest.raises(KeeperUnavailable, match="signing key"):
            keeper.ask(op="certify", tenant=ACME, statement="x")
        assert keeper.status()["public_key"] is None
        path.chmod(0o600)
        path.write_bytes(b"short" if content == key else key)
    with pytest.raises(KeyDestroyed):
        keeper.ask(op="provision", tenant=ACME)
