"""What the ledger has is refused by every operation, whatever is restored and however the keeper ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from wardkey_core import keeper_client as client
from wardkey_core.administration import Unsupported
from wardkey_core.errors import KeeperUnavailable, KeyDestroyed, KeyRefused
from wardkey_core.wire import frame

from tests.support.keepers import ACME, GLOBEX, Keeper

MASTER = str(UUID(int=0))
KEY = ("kek", "kek_version", "wrapped")


def ledger(keeper: Keeper) -> Path:
    return keeper.directory / "ledger.jsonl"


def requests(keeper: Keeper, key: dict[str, Any]) -> list[dict[str, Any]]:
    """Every operation that would give a tenant's key to somebody or make it a new one."""
    kept = {name: key[name] for name in KEY}
    master = keeper.key(MASTER)
    wrapped = {name: master[name] for name in KEY}
    salt = keeper.ask(op="derive", tenant=GLOBEX, version=1, master=1, **wrapped)["salt"]
    asked = {"version": 1, "token": keeper.token(), "classes": ["clinical"], "commitment": key["commitment"]}
    return [
        {"op": "release", **asked, **kept},
        {"op": "release", **asked, "master": 1, "salt": salt, **wrapped},
        {"op": "provision"},
        {"op": "derive", "version": 1, "master": 1, **wrapped},
        {"op": "rewrap", **key},
        {"op": "reseal", "to": 1, "keys": [key], "classes": {"clinical": 3}, "length": 0},
    ]


def test_a_shredded_tenant_is_refused_by_name_everywhere(keeper: Keeper) -> None:
    key, others = keeper.key(), keeper.provision(GLOBEX)
    asked = requests(keeper, key)
    assert keeper.class_key(key)
    cached = keeper.status()["cached_keys"]
    done = keeper.ask(op="shred", tenant=ACME, name="acme")
    assert keeper.status()["cached_keys"] == cached - 1
    assert keeper.status()["ledger"] == 1
    for request in (
        *asked,
        {"op": "kek", "action": "create"},
        {"op": "kek", "action": "rotate"},
        {"op": "provision", "version": 2},
    ):
        with pytest.raises(KeyDestroyed, match=f"tenant acme was shredded on {done['time'][:10]}"):
            keeper.ask(tenant=ACME, **request)
    assert keeper.ask(**others)
    assert keeper.log_lines()[-2]["sqlstate"] == "WK106"


def test_a_destroyed_version_is_refused_and_no_other(keeper: Keeper) -> None:
    one, two = keeper.key(), keeper.key(version=2)
    asked = requests(keeper, one)
    keeper.ask(op="tombstone", tenant=ACME, name="acme", version=1)
    for request in asked:
        with pytest.raises(KeyDestroyed, match="version 1 of the tenant's key was destroyed on"):
            keeper.ask(tenant=ACME, **request)
    with pytest.raises(KeyDestroyed):
        keeper.reseal([one, two], b"")
    assert keeper.class_key(two) and keeper.reseal([two], b"") == []
    assert keeper.ask(op="kek", tenant=ACME, action="rotate")


def test_a_destroyed_master_is_refused_with_all_that_derives_from_it(keeper: Keeper) -> None:
    master = keeper.key(MASTER)
    kept = {name: master[name] for name in KEY}
    made = keeper.ask(op="derive", tenant=ACME, version=1, master=1, **kept)
    request = {
        "op": "release",
        "tenant": ACME,
        "version": 1,
        "token": keeper.token(),
        "classes": ["clinical"],
        "master": 1,
        **made,
    }
    assert keeper.ask(**request, **kept)
    keeper.ask(op="tombstone", tenant=MASTER, name="master", version=1)
    for refused in (request, {"op": "derive", "tenant": ACME, "version": 2, "master": 1}):
        with pytest.raises(KeyDestroyed):
            keeper.ask(**refused, **kept)
    with pytest.raises(Unsupported):
        keeper.ask(op="shred", tenant=MASTER, name="master")
    assert keeper.key(MASTER, version=2)


def test_a_key_destroyed_while_it_is_asked_for_is_not_released(keeper: Keeper) -> None:
    key = keeper.key()
    keeper.break_kms()
    with keeper.connect() as connection:
        request = {"op": "release", "tenant": ACME, "token": keeper.token(), "classes": ["clinical"], **key}
        connection.sendall(frame(request))
        time.sleep(0.05)
        keeper.ask(op="shred", tenant=ACME, name="acme")
        keeper.mend_kms()
        answer = client.receive(connection)
    assert answer and answer["sqlstate"] == "WK106"
    assert keeper.status()["cached_keys"] == 0


def test_said_twice_it_is_written_once(keeper: Keeper) -> None:
    first = keeper.ask(op="tombstone", tenant=ACME, name="acme", version=1)
    assert keeper.ask(op="tombstone", tenant=ACME, name="renamed", version=1) == first
    whole = keeper.ask(op="shred", tenant=ACME, name="acme")
    assert keeper.ask(op="shred", tenant=ACME, name="acme") == whole
    assert keeper.ask(op="tombstone", tenant=ACME, name="acme", version=7) == whole
    lines = [json.loads(line) for line in ledger(keeper).read_text().splitlines()]
    assert [(line["what"], line["tenant"], line["version"], line["name"]) for line in lines] == [
        ("version", ACME, 1, "acme"),
        ("tenant", ACME, None, "acme"),
    ]
    assert ledger(keeper).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_outlives_the_keeper_and_a_restored_backup(keeper: Keeper, number: signal.Signals) -> None:
    key = keeper.key()
    shutil.copytree(keeper.directory / "kek", keeper.base / "backup")
    keeper.ask(op="shred", tenant=ACME, name="acme")
    keeper.ask(op="kek", tenant=ACME, action="destroy_all")
    keeper.stop(number)
    shutil.rmtree(keeper.directory / "kek")
    shutil.copytree(keeper.base / "backup", keeper.directory / "kek")
    keeper.start()
    with pytest.raises(KeyDestroyed, match="tenant acme was shredded"):
        keeper.class_key(key)


def test_acknowledged_tombstones_are_there_after_kill_9_at_any_moment(new_keeper: Keeper) -> None:
    keeper, acknowledged = new_keeper, 0
    for moment in range(5):
        keeper.start()
        script = (
            "import sys; from pathlib import Path; from wardkey_core import keeper_client as client\n"
            "for n in range(1, 10_000):\n"
            "    request = {'op': 'tombstone', 'tenant': sys.argv[2], 'name': 'x', 'version': n}\n"
            "    client.ask(Path(sys.argv[1]), request); print(n, flush=True)\n"
        )
        command = [sys.executable, "-c", script, str(keeper.socket), ACME]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as asking:
            assert asking.stdout
            while acknowledged < 10 * moment + 5:
                acknowledged = int(asking.stdout.readline())
            keeper.stop(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, asking.stdout.read().split())])
        assert keeper.start().status()["ledger"] >= acknowledged
        keeper.stop()


TORN = [
    b"{",
    b'{"time":"2026-01-01T00:00:00+00:00","what":"tenant"',
    b"\0" * 100,
    os.urandom(64).replace(b"\n", b""),
]


@pytest.mark.parametrize("end", TORN, ids=["brace", "half", "zeros", "noise"])
def test_a_torn_last_line_is_cut(keeper: Keeper, end: bytes) -> None:
    keeper.ask(op="shred", tenant=ACME, name="acme")
    keeper.stop(signal.SIGKILL)
    whole = ledger(keeper).read_bytes()
    ledger(keeper).write_bytes(whole + end)
    assert keeper.start().status()["ledger"] == 1
    assert ledger(keeper).read_bytes() == whole and "was cut off" in keeper.errors
    keeper.ask(op="shred", tenant=GLOBEX, name="globex")
    keeper.stop()
    assert keeper.start().status()["ledger"] == 2


def damaged(line: str) -> list[str]:
    entry = json.loads(line)
    return [
        "\n",
        "x\n",
        "{}\n",
        "[]\n",
        line.replace("acme", "\x00"),
        line[:-10] + "\n",
        *(
            json.dumps(entry | change, separators=(",", ":")) + "\n"
            for change in (
                {"what": "version"},
                {"what": "Tenant"},
                {"version": 1},
                {"version": "1", "what": "version"},
                {"version": True, "what": "version"},
                {"version": 0.5, "what": "version"},
                {"tenant": "acme"},
                {"time": "yesterday"},
                {"more": 1},
                {"name": None},
            )
        ),
    ]


@pytest.mark.parametrize("which", range(16))
@pytest.mark.parametrize("where", ["first", "last"])
def test_with_a_damaged_line_it_does_not_start(new_keeper: Keeper, which: int, where: str) -> None:
    good = (
        '{"time":"2026-01-01T00:00:00+00:00","what":"tenant",'
        f'"tenant":"{ACME}","version":null,"name":"acme"}}\n'
    )
    bad = damaged(good)[which]
    ledger(new_keeper).write_text(bad + good if where == "first" else good + bad)
    ledger(new_keeper).chmod(0o600)
    assert new_keeper.launch().wait(20) == 1
    assert f"line {1 if where == 'first' else 2} of {ledger(new_keeper)} is damaged" in new_keeper.errors
    assert ACME not in new_keeper.errors


def test_with_a_ledger_others_may_write_it_does_not_start(new_keeper: Keeper) -> None:
    ledger(new_keeper).write_text("")
    ledger(new_keeper).chmod(0o666)
    assert new_keeper.launch().wait(20) == 1
    ledger(new_keeper).unlink()
    ledger(new_keeper).symlink_to("/dev/null")
    assert new_keeper.launch().wait(20) == 1
    assert "ledger.jsonl" in new_keeper.errors


def test_a_ledger_that_cannot_be_written_acknowledges_nothing(keeper: Keeper) -> None:
    keeper.ask(op="shred", tenant=GLOBEX, name="globex")
    away = ledger(keeper).with_suffix(".away")
    for trouble in ("away", "shorter", "longer"):
        ledger(keeper).rename(away)
        if trouble != "away":
            whole = away.read_bytes()
            ledger(keeper).write_bytes(whole[:-9] if trouble == "shorter" else whole + b"x")
        with pytest.raises(KeeperUnavailable, match="cannot write its ledger"):
            keeper.ask(op="shred", tenant=ACME, name="acme")
        away.rename(ledger(keeper))
    assert keeper.ask(**keeper.provision())
    assert keeper.ask(op="shred", tenant=ACME, name="acme")
    keeper.stop()
    assert keeper.start().status()["ledger"] == 2


def test_only_a_shredded_tenants_kek_is_destroyed_whole(keeper: Keeper) -> None:
    key = keeper.key()
    with pytest.raises(KeyRefused, match="not shredded"):
        keeper.ask(op="kek", tenant=ACME, action="destroy_all")
    assert keeper.class_key(key)
