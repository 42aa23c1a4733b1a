"""Cells with each KMS; the KMSs themselves are those of tests/kms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kms.benches import GcpBench, LocalBench
from tests.kms.conftest import (  # noqa: F401
    cloud_kms,
    gcpkms_bench,
    local_bench,
    openbao,
    pkcs11_bench,
    softhsm,
    vault_bench,
)
from tests.support.database import Database

from .cells import Cell, running


@pytest.fixture
def local_cell(database: Database, local_bench: LocalBench) -> Iterator[Cell]:  # noqa: F811
    with running(database, local_bench) as cell:
        yield cell


@pytest.fixture
def gcp_cell(database: Database, gcpkms_bench: GcpBench) -> Iterator[Cell]:  # noqa: F811
    with running(database, gcpkms_bench) as cell:
        yield cell
