"""The keeper with each provider, as a process: it releases, and needs no import once it is not root."""

from __future__ import annotations

import base64
import os
import shutil
from pathlib import Path
from uuid import UUID

import pytest
from wardkey_core.envelope import class_key, commitment, key_aad
from wardkey_core.errors import KeyRefused

from tests.support.keepers import ACME, GLOBEX, Keeper, is_root
from wardkey.keeper.keys import signed
from wardkey.keeper.requests import WrappedKey
from wardkey.keeper.signing import SigningKey
from wardkey.kms import KekRef

from .benches import DEK, Bench

NOBODY = 65534
CLASS_KEY = class_key(DEK, UUID(ACME).bytes, 1, "clinical")
# Says what is imported, and which file of Python's own is opened, after the keeper became its own user.
WATCHED = """
import os, sys
become = os.setresuid
class Finder:
    def find_spec(self, name, path=None, target=None): print('IMPORT', name, file=sys.stderr)
def opened(event, arguments):
    if event == 'open' and str(arguments[0]).startswith(sys.prefix):
        print('OPEN', arguments[0], file=sys.stderr)
def setresuid(*ids):
    become(*ids)
    sys.meta_path.insert(0, Finder())
    sys.addaudithook(opened)
os.setresuid = setresuid
from wardkey.keeper.__main__ import SERVICE
sys.exit(SERVICE.main(sys.argv[1:]))
"""


def start(keeper: Keeper, bench: Bench) -> None:
    if not is_root():
        keeper.start("--kms", bench.uri)
        return
    keeper.base.chmod(0o777)
    for path in (keeper.directory, *keeper.directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    bench.give_to(NOBODY)
    options = ("--kms", bench.uri, "--run-as", f"{NOBODY}:{NOBODY}", "--allow-uid", "0")
    keeper.start(*options, program=("-c", WATCHED))


def wrapped_by(keeper: Keeper, bench: Bench, kek: KekRef) -> bytes:
    """Return the DEK as the keeper wraps it, which signs what is wrapped under a public key."""
    made = WrappedKey(
        UUID(ACME), 1, kek, bench.open().wrap(kek, DEK, key_aad(UUID(ACME).bytes, 1, "default"))
    )
    return (
        signed(made, SigningKey(keeper.directory / "signing.key"))
        if bench.open().is_asymmetric
        else made.wrapped
    )


def test_a_key_is_released_and_nothing_of_it_written(bench: Bench) -> None:
    kek = bench.open_admin().create_kek(UUID(ACME))
    keeper = Keeper()
    shutil.copytree(bench.directory, keeper.directory, dirs_exist_ok=True)
    wrapped = wrapped_by(keeper, bench, kek)
    try:
        start(keeper, bench)
        request = {
            "op": "release",
            "tenant": ACME,
            "version": 1,
            "kek": kek.name,
            "kek_version": kek.version,
            "wrapped": base64.b64encode(wrapped).decode(),
            "commitment": base64.b64encode(commitment(DEK, UUID(ACME).bytes, 1)).decode(),
            "token": keeper.token(),
            "classes": ["clinical"],
        }
        assert base64.b64decode(keeper.ask(**request)["classes"]["clinical"]) == CLASS_KEY
        assert keeper.status()["provider"] == bench.scheme
        for wrong in (
            {"version": 2},
            {"tenant": GLOBEX, "token": keeper.token(GLOBEX)},
            {"kek_version": "7"},
        ):
            with pytest.raises(KeyRefused):
                keeper.ask(**{**request, **wrong})
        written = keeper.errors + (keeper.directory / "release.log").read_text()
        assert "IMPORT" not in written and "OPEN" not in written, written
        for secret in (
            *bench.secrets(),
            *(base64.b64encode(key).decode() for key in (DEK, CLASS_KEY)),
            repr(DEK)[2:20],
        ):
            assert secret not in written
        command = Path(f"/proc/{keeper.pid}/cmdline").read_text()
        assert not [secret for secret in bench.secrets() if secret in command]
        assert keeper.stop() == 0
    finally:
        keeper.remove()
