"""Keys, tokens and wrapped keys are in no log and no message; the process cannot be dumped or looked into."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from wardkey_core.errors import WardError

from tests.support.keepers import ACME, GLOBEX, Keeper, is_root
from wardkey.keeper.cache import KeyCache
from wardkey.keeper.keys import Opened
from wardkey.keeper.requests import Release


def written(keeper: Keeper) -> str:
    return keeper.errors + (keeper.directory / "release.log").read_text()


def test_the_log_says_who_got_what_and_nothing_more(keeper: Keeper) -> None:
    request = keeper.provision()
    dek = keeper.ask(**request)["classes"]["clinical"]
    payload = json.loads(base64.urlsafe_b64decode(request["token"].split(".")[1] + "=="))
    with pytest.raises(WardError):
        keeper.ask(**{**request, "token": keeper.token(GLOBEX)})
    with pytest.raises(WardError):
        keeper.ask(**{**request, "version": 2})
    with pytest.raises(WardError):
        keeper.ask(**{**request, "token": request["token"][:-8] + "AAAAAAAA"})
    made, released, of_other, wrong_version, forged = keeper.log_lines()
    assert (made["op"], made["outcome"], made["tenant"]) == ("provision", "provisioned", ACME)
    assert released == {
        "time": released["time"],
        "op": "release",
        "outcome": "released",
        "tenant": ACME,
        "version": 1,
        "issuer": keeper.issuer.name,
        "subject": "dr.grey",
        "role": "VIEWER",
        "jti_sha256": hashlib.sha256(payload["jti"].encode()).hexdigest()[:32],
        "uid": os.geteuid(),
        "pid": os.getpid(),
        "classes": ["clinical"],
    }
    assert (of_other["outcome"], of_other["sqlstate"], of_other["subject"]) == ("refused", "WK103", "dr.grey")
    assert (wrong_version["outcome"], wrong_version["version"]) == ("refused", 2)
    assert (forged["sqlstate"], forged["subject"]) == ("WK002", None)
    text = written(keeper)
    raw = base64.b64decode(dek)
    for secret in (dek, raw.hex(), repr(raw)[2:-1], request["wrapped"], request["token"], payload["jti"]):
        assert secret not in text
    assert not any(part in text for part in request["token"].split("."))
    assert (keeper.directory / "release.log").stat().st_mode & 0o777 == 0o600


def test_files_hold_no_key_in_the_clear(keeper: Keeper) -> None:
    dek = base64.b64decode(keeper.ask(**keeper.provision())["classes"]["clinical"])
    kek_file = keeper.kek_file().read_bytes()
    root = (keeper.directory / "root.key").read_bytes()
    for path in keeper.directory.rglob("*"):
        if path.is_file():
            assert path.stat().st_mode & 0o077 == 0, path
            content = path.read_bytes()
            for form in (dek, base64.b64encode(dek), dek.hex().encode()):
                assert form not in content, path
    assert root not in kek_file and base64.b64encode(root) not in kek_file


def test_the_process_can_neither_be_dumped_nor_looked_into(new_keeper: Keeper) -> None:
    options: tuple[str, ...] = ()
    if is_root():  # whom /proc would show as the owner even if nothing were done
        os.chown(new_keeper.directory, 65534, 65534)
        os.chown(new_keeper.issuers_file, 65534, 65534)
        new_keeper.base.chmod(0o777)
        options = ("--run-as", "65534:65534", "--allow-uid", "0")
    keeper = new_keeper.start(*options)
    limits = Path(f"/proc/{keeper.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    # The kernel gives the files of a process that is not dumpable to root, no matter whose the process is.
    assert Path(f"/proc/{keeper.pid}/environ").stat().st_uid == 0
    control = subprocess.Popen(["/bin/sleep", "30"], user=65534 if is_root() else None)
    try:
        assert Path(f"/proc/{control.pid}/environ").stat().st_uid == (65534 if is_root() else os.geteuid())
    finally:
        control.kill()
        control.wait()


def test_hardening_is_not_left_to_the_change_of_user() -> None:
    script = (
        "import ctypes; from wardkey.daemon.privileges import harden\n"
        "def dumpable(): return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)\n"
        "print(dumpable()); harden(); print(dumpable())"
    )
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["1", "0"]


def test_asyncio_cannot_show_a_key() -> None:
    async def opened() -> Opened:
        return Opened(b"sixteen-byte-key" * 2)

    async def run() -> str:
        task = asyncio.create_task(opened())
        await task
        return repr(task)

    assert "Opened" in (shown := asyncio.run(run())) and "sixteen" not in shown


def test_the_command_line_and_environment_tell_nothing(keeper: Keeper) -> None:
    request = keeper.provision()
    dek = keeper.ask(**request)["classes"]["clinical"]
    shown = Path(f"/proc/{keeper.pid}/cmdline").read_bytes()
    assert dek.encode() not in shown and request["token"].encode() not in shown


def test_nothing_shows_a_key_by_accident() -> None:
    key = b"sixteen-byte-key" * 2
    cache = KeyCache[str](60)
    cache.put("x", key)
    release = Release(
        tenant=UUID(ACME),
        version=1,
        kek="local:x",
        kek_version="1",
        wrapped=key,
        commitment=key,
        classes=["clinical"],
        token="header.payload.signature",
    )
    shown = repr(cache) + str(cache) + repr(release) + str(release) + repr(release.key)
    assert "sixteen" not in shown and "payload" not in shown


def test_a_dropped_key_is_overwritten() -> None:
    now = 0.0
    cache = KeyCache[str](10, most=2, clock=lambda: now)
    cache.put("old", b"\1" * 32)
    held = cache._entries["old"][1]
    now = 9.9
    assert cache.get("old") == b"\1" * 32
    now = 10.0
    assert cache.get("old") is None
    assert held == bytes(32)
    for name in ("a", "b"):
        cache.put(name, b"\2" * 32)
    cache.get("a")
    cache.put("c", b"\3" * 32)
    assert (cache.get("a"), cache.get("b"), len(cache)) == (b"\2" * 32, None, 2)
    now = 30.0
    cache.sweep()
    assert len(cache) == 0
