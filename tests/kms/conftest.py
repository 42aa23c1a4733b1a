"""Each provider against a real implementation, started by the first test that needs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cloud_kms_server import CloudKmsServer
from tests.support.key_vault import KeyVault
from tests.support.moto import Moto
from tests.support.openbao import OpenBao
from tests.support.softhsm import SoftHsm, the_token

from .benches import AwsBench, AzureBench, Bench, GcpBench, LocalBench, Pkcs11Bench, VaultBench


@pytest.fixture(params=["local", "gcpkms", "gcpkms_rest", "vault", "awskms", "pkcs11", "azure"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Every provider in turn."""
    made: Bench = request.getfixturevalue(f"{request.param}_bench")
    return made


@pytest.fixture
def local_bench(tmp_path: Path) -> LocalBench:
    return LocalBench(tmp_path)


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBao]:
    server = OpenBao()
    yield server
    server.remove()


@pytest.fixture
def vault_bench(openbao: OpenBao, tmp_path: Path) -> VaultBench:
    return VaultBench(tmp_path, openbao)


@pytest.fixture(scope="session")
def softhsm() -> SoftHsm:
    return the_token()


@pytest.fixture
def pkcs11_bench(softhsm: SoftHsm, tmp_path: Path) -> Pkcs11Bench:
    return Pkcs11Bench(tmp_path, softhsm)


@pytest.fixture(scope="session")
def moto() -> Iterator[Moto]:
    server = Moto()
    yield server
    server.stop()


@pytest.fixture
def awskms_bench(moto: Moto, tmp_path: Path) -> AwsBench:
    return AwsBench(tmp_path, moto)


@pytest.fixture(scope="session")
def cloud_kms() -> Iterator[CloudKmsServer]:
    server = CloudKmsServer()
    yield server
    server.stop()


@pytest.fixture
def gcpkms_bench(cloud_kms: CloudKmsServer, tmp_path: Path) -> Iterator[GcpBench]:
    bench = GcpBench(tmp_path, cloud_kms, "grpc")
    yield bench
    bench.mend()


@pytest.fixture
def gcpkms_rest_bench(cloud_kms: CloudKmsServer, tmp_path: Path) -> Iterator[GcpBench]:
    bench = GcpBench(tmp_path, cloud_kms, "rest")
    yield bench
    bench.mend()


@pytest.fixture(scope="session")
def key_vault() -> Iterator[KeyVault]:
    server = KeyVault()
    yield server
    server.stop()


@pytest.fixture
def azure_bench(key_vault: KeyVault, tmp_path: Path) -> Iterator[AzureBench]:
    bench = AzureBench(tmp_path, key_vault)
    yield bench
    bench.mend()
