"""The keeper signs checkpoints of audit logs that go on from one another, and no second history."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from wardkey_core.administration import Unsupported
from wardkey_core.errors import KeeperUnavailable, KeyRefused
from wardkey_core.log.checkpoint import Checkpoint, Signed, fingerprint, verify_chain

from tests.audit.logs import moment
from tests.keeper.test_only_administrators_end_keys import BACKEND, OPERATOR, shared  # noqa: F401
from tests.support.keepers import ACME, GLOBEX, Keeper, stranger_asks

PLATFORM = "00000000-0000-0000-0000-000000000000"


def public_key(keeper: Keeper, **request: Any) -> bytes:
    return base64.b64decode(keeper.ask(op="checkpoint", **{"tenant": ACME, **request})["public_key"])


def after(keeper: Keeper, last: Checkpoint | None, size: int, **members: Any) -> Checkpoint:
    fitting: dict[str, Any] = {
        "tenant": ACME,
        "number": last.number + 1 if last else 1,
        "size": size,
        "root": bytes([size] * 32),
        "previous": last.digest() if last else bytes(32),
        "at": moment(size),
        "key": fingerprint(public_key(keeper)),
    }
    return Checkpoint(**fitting | members)


def sign(keeper: Keeper, checkpoint: Checkpoint, **request: Any) -> Signed:
    statement = checkpoint.encode().decode()
    asked = {"tenant": checkpoint.tenant, "statement": statement, **request}
    return Signed(checkpoint, base64.b64decode(keeper.ask(op="checkpoint", **asked)["signature"]))


def test_a_chain_is_signed_and_verifies(keeper: Keeper) -> None:
    chain: list[Signed] = []
    for size in (1, 5, 5, 9):
        this = after(keeper, chain[-1].checkpoint if chain else None, size)
        chain.append(sign(keeper, this))
        assert sign(keeper, this) == chain[-1]
    key = public_key(keeper)
    assert verify_chain(chain, {fingerprint(key): key}) == chain[-1].checkpoint
    last = keeper.ask(op="checkpoint", tenant=ACME)
    assert (last["number"], last["size"]) == (4, 9)
    assert last["digest"] == chain[-1].checkpoint.digest().hex()
    assert [line["op"] for line in keeper.log_lines()] == ["checkpoint"], "one line for each peer and tenant"


@pytest.mark.parametrize("restart", [False, True])
def test_a_fork_is_refused(keeper: Keeper, restart: bool) -> None:
    first = after(keeper, None, 5)
    second = after(keeper, first, 7)
    for checkpoint in (first, second):
        sign(keeper, checkpoint)
    if restart:
        keeper.process.kill()  # type: ignore[union-attr]
        keeper.process.wait()  # type: ignore[union-attr]
        keeper.start()
    forks = [
        after(keeper, None, 9),
        first,
        after(keeper, first, 7, root=bytes(32)),
        after(keeper, first, 8),
        after(keeper, second, 6),
        after(keeper, second, 8, at=moment(6)),
        after(keeper, second, 8, previous=first.digest()),
        after(keeper, second, 8, number=4),
    ]
    for fork in forks:
        with pytest.raises(KeyRefused, match="checkpoint"):
            sign(keeper, fork)
        assert keeper.log_lines()[-1]["outcome"] == "refused"
    sign(keeper, second)
    sign(keeper, after(keeper, second, 8))


def test_a_restored_database_goes_on_once_an_administrator_says_so(keeper: Keeper) -> None:
    first = after(keeper, None, 5)
    lost = after(keeper, first, 9)
    for checkpoint in (first, lost):
        sign(keeper, checkpoint)
    again = after(keeper, first, 6)
    with pytest.raises(KeyRefused) as caught:
        sign(keeper, again)
    assert "readmit" in str(caught.value.hint)
    keeper.ask(op="checkpoint", tenant=ACME, readmit=True)
    assert keeper.log_lines()[-1]["outcome"] == "readmitted"
    keeper.stop()
    keeper.start()
    sign(keeper, again)
    with pytest.raises(KeyRefused):
        sign(keeper, lost)


def test_what_is_no_checkpoint_of_this_tenant_and_key_is_not_signed(keeper: Keeper) -> None:
    good = after(keeper, None, 5)
    text = good.encode().decode()
    requests: list[dict[str, Any]] = [
        {"statement": "x"},
        {"statement": text.replace('":', '": ', 1)},
        {"statement": text, "tenant": GLOBEX},
        {"statement": text, "log": "a"},
        {"statement": text, "readmit": True},
        {"tenant": PLATFORM},
    ]
    for request in requests:
        with pytest.raises(Unsupported):
            keeper.ask(op="checkpoint", **{"tenant": ACME, **request})
    with pytest.raises(KeyRefused, match="another key"):
        sign(keeper, after(keeper, None, 5, key=bytes(32)))
    assert keeper.ask(op="checkpoint", tenant=ACME)["number"] == 0


def test_each_database_has_a_log_of_the_platform(keeper: Keeper) -> None:
    for log, size in (("one", 5), ("two", 3)):
        sign(keeper, after(keeper, None, size, tenant=PLATFORM), log=log)
    with pytest.raises(KeyRefused):
        sign(keeper, after(keeper, None, 4, tenant=PLATFORM), log="one")


def test_neither_backends_nor_strangers_have_checkpoints_signed(shared: Keeper) -> None:  # noqa: F811
    scribe = 65531
    shared.stop()
    options = ["--run-as", "65534:65534", "--allow-uid", "0", str(BACKEND)]
    shared.start(*options, "--admin-uid", str(OPERATOR), "--scribe-uid", str(scribe))
    shared.socket.chmod(0o666)
    statement = {"op": "checkpoint", "tenant": ACME}
    refused = stranger_asks(shared, statement, uid=BACKEND)
    assert refused and refused["sqlstate"] == "WK103" and "--scribe-uid" in refused["hint"]
    assert (stranger_asks(shared, statement, uid=scribe) or {})["ok"] is True
    readmit = {**statement, "readmit": True}
    assert (stranger_asks(shared, readmit, uid=scribe) or {})["sqlstate"] == "WK103"
    assert (stranger_asks(shared, readmit, uid=OPERATOR) or {})["ok"] is True
    other = {"op": "shred", "tenant": ACME, "name": "acme"}
    assert (stranger_asks(shared, other, uid=scribe) or {})["sqlstate"] == "WK103"


def test_what_was_signed_is_remembered_whole_or_the_keeper_does_not_start(keeper: Keeper) -> None:
    first = after(keeper, None, 5)
    sign(keeper, first)
    path = keeper.directory / "checkpoints.jsonl"
    keeper.stop()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    keeper.start()
    assert path.read_bytes() == whole and "cut off" in keeper.errors
    keeper.stop()
    path.write_bytes(b"{}\n" + whole)
    process = keeper.launch()
    assert process.wait(10) == 1 and "line 1" in keeper.errors
    path.write_bytes(whole)
    keeper.start()
    with pytest.raises(KeyRefused):
        sign(keeper, after(keeper, None, 6))


def test_nothing_is_signed_that_cannot_be_remembered(keeper: Keeper) -> None:
    first = after(keeper, None, 5)
    sign(keeper, first)
    path = keeper.directory / "checkpoints.jsonl"
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    path.chmod(0o700)
    with pytest.raises(KeeperUnavailable, match="remember"):
        sign(keeper, after(keeper, first, 6))
    path.rmdir()
    path.write_bytes(content)
    sign(keeper, after(keeper, first, 7))
