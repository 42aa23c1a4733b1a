"""With a credential of its own, the orchestrator asks the KMS and not the keeper, whichever KMS it is."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from wardkey.errors import KeyRefused
from wardkey.keys.kek import Keks
from wardkey.kms import KmsDenied, configured

from .benches import DEK, Bench


def test_the_life_of_a_kek_without_a_keeper(bench: Bench, tmp_path: Path) -> None:
    if bench.scheme == "local":
        pytest.skip("the local KMS is the keeper's")
    entry = configured.Entry(bench.uri, admin=bench.admin_uri)
    configured.write(bench.admin_directory, configured.Configuration((entry,)))
    keks, tenant = Keks(bench.admin_directory, tmp_path / "no keeper"), uuid4()
    old = keks.create(tenant)
    wrapped = bench.open().wrap(old, DEK, b"")
    new = keks.rotate(tenant)
    assert keks.create(tenant) == new != old
    keks.disable(tenant, old)
    assert [version.state for version in keks.versions(tenant)] == ["disabled", "enabled"]
    keks.destroy(tenant, old)
    assert [each.state for each in keks.versions(tenant) if each.version != old.version] == ["enabled"]
    for end in (keks.disable, keks.destroy):
        with pytest.raises(KeyRefused, match="current version"):
            end(tenant, new)
    keks.destroy_all(tenant)
    assert not [version for version in keks.versions(tenant) if version.state in ("enabled", "disabled")]
    with pytest.raises(KmsDenied):
        bench.open().unwrap(old, wrapped, b"")
