"""A backup that a KMS has to open: by those who may use the KEK of backups there, and by nobody else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.homes import make_directory, throw_away
from tests.support.kms_servers import KmsServer, choice_of
from tests.support.openbao import OpenBao
from wardkey.backup import kms_seal
from wardkey.backup.kms_seal import BACKUPS, KmsChoice
from wardkey.embedded import Cluster, Home
from wardkey.errors import RestoreRefused, ServerError
from wardkey.kms import open_kms

from .benches import Bench, VaultBench


def choice(bench: Bench) -> KmsChoice:
    return KmsChoice(bench.uri, bench.directory, (bench.admin_uri, bench.admin_directory))


def test_every_kms_opens_what_it_sealed_and_nothing_else(bench: Bench) -> None:
    if bench.scheme == "local":
        with pytest.raises(ServerError, match="under themselves"):
            kms_seal.chosen("local:", None, bench.directory, bench.admin_directory)
        return
    kms = choice(bench)
    recipient, envelope = kms_seal.recipient(kms)
    other, _ = kms_seal.recipient(kms)
    assert str(kms_seal.identity(kms, envelope).to_public()) == str(recipient) != str(other)
    assert str(kms_seal.identity(kms, envelope)) not in json.dumps(envelope)
    for name in envelope:
        for changed in (f"{envelope[name]}x", envelope[name][:-8], ""):
            with pytest.raises((RestoreRefused, ServerError)):
                kms_seal.identity(kms, {**envelope, name: changed})
    with pytest.raises(RestoreRefused, match="not sealed by a KMS"):
        kms_seal.identity(kms, None)


@pytest.fixture
def server(cluster: Cluster, vault_bench: VaultBench) -> KmsServer:
    directory = make_directory(cluster.home.python)
    server = KmsServer(directory / "home")
    try:
        server("kms", "use", *choice_of(vault_bench))
        server.start()
        server("tenant", "create", "acme")
        server.write("acme", "of acme")
        yield server
    finally:
        throw_away(directory)


def test_it_is_restored_with_the_credential_and_without_it_not(
    server: KmsServer,
    vault_bench: VaultBench,
    openbao: OpenBao,
    new_home: Callable[[], Home],
    tmp_path: Path,
) -> None:
    backup = tmp_path / "monday"
    server("backup", str(backup), "--kms", "cell")
    texts = b"".join(path.read_bytes() for path in backup.iterdir())
    assert b"AGE-SECRET-KEY" not in texts
    assert not any(secret.encode() in texts for secret in vault_bench.secrets())
    facts = server.json("restore", str(backup), "--kms", "cell", "--drill")
    assert facts["ok"] and {one["tenant"]: one["rows"] for one in facts["tenants"]}["acme"] == 1
    assert server.json("status")["backup"]["drill_is_good"] is True

    # elsewhere, where nothing of the cell is known
    home = new_home()
    shutil.rmtree(home.path)
    moved = KmsServer(home.path)
    there = ("restore", str(backup), "--kms", vault_bench.uri, "--kms-directory")
    refused = moved(*there, str(vault_bench.admin_directory), code=1).stderr  # makes KEKs, may not use them
    assert "does not open the backup" in refused and not home.path.exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "does not open the backup" in moved(*there, str(empty), code=1).stderr
    assert "does not open with this" not in refused and "Traceback" not in refused
    assert moved.json(*there, str(vault_bench.directory))["ok"]
    assert moved.read("acme") == ["of acme"]

    # the KEK of backups destroyed: no backup opens any more
    open_kms(vault_bench.admin_uri, vault_bench.admin_directory).destroy_all(BACKUPS)
    assert "does not open" in server("restore", str(backup), "--kms", "cell", "--drill", code=1).stderr
