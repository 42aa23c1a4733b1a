"""A provider as the contract's tests need it: a real implementation, two credentials."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import boto3

from tests.support.cloud_kms_server import PARENT, CloudKmsServer
from tests.support.key_vault import OFFICER, USER, KeyVault
from tests.support.moto import REGION, Moto
from tests.support.openbao import KEEPER, ORCHESTRATOR, OpenBao
from tests.support.softhsm import SoftHsm
from wardkey.daemon.files import write_atomically
from wardkey.embedded import Home
from wardkey.kms import Kms, open_kms

ACME, GLOBEX = UUID(int=10), UUID(int=11)
DEK = bytes(range(100, 132))


class Bench:
    """One provider. The keeper's credential uses KEKs, the orchestrator's manages them."""

    uri: str
    admin_uri: str

    def __init__(self, base: Path) -> None:
        self.directory, self.admin_directory = base / "keeper", base / "orchestrator"
        for directory in (self.directory, self.admin_directory):
            directory.mkdir(mode=0o700)

    @property
    def scheme(self) -> str:
        return self.uri.partition(":")[0]

    def open(self) -> Kms:
        return open_kms(self.uri, self.directory)

    def open_admin(self) -> Kms:
        return open_kms(self.admin_uri, self.admin_directory)

    def secrets(self) -> Sequence[str]:
        """Return what must be in no text: the credentials."""
        return ()

    def give_to(self, uid: int) -> None:
        """Let an operating system user reach what is not in the keeper's directory, if anything is not."""


class LocalBench(Bench):
    uri = admin_uri = "local:"

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.admin_directory = self.directory

    @classmethod
    def of(cls, home: Home) -> LocalBench:
        """Return that of a home, whose keeper keeps the keys."""
        bench = cls.__new__(cls)
        bench.directory = bench.admin_directory = home.keeper
        return bench


class VaultBench(Bench):
    def __init__(self, base: Path, server: OpenBao) -> None:
        super().__init__(base)
        self.server = server
        self.uri, self.admin_uri = server.uri, f"{server.uri}&keeper={KEEPER}"
        server.give_credential(self.directory, KEEPER)
        server.give_credential(self.admin_directory, ORCHESTRATOR)

    def secrets(self) -> Sequence[str]:
        files = (self.directory / "vault.json", self.admin_directory / "vault.json")
        return [secret for file in files for secret in json.loads(file.read_text()).values()]


class Pkcs11Bench(Bench):
    def __init__(self, base: Path, server: SoftHsm) -> None:
        super().__init__(base)
        self.server = server
        self.uri = self.admin_uri = server.uri
        for directory in (self.directory, self.admin_directory):
            write_atomically(directory / "pkcs11.pin", server.pin.encode() + b"\n")

    def secrets(self) -> Sequence[str]:
        return [self.server.pin]

    def give_to(self, uid: int) -> None:
        self.server.give_to(uid)


class AwsBench(Bench):
    def __init__(self, base: Path, server: Moto) -> None:
        super().__init__(base)
        self.server = server
        self.uri = self.admin_uri = server.uri
        self.credential = {
            "access_key_id": "AKIAWARDKEYTESTS0000",
            "secret_access_key": secrets.token_hex(20),
        }
        for directory in (self.directory, self.admin_directory):
            write_atomically(directory / "aws.json", json.dumps(self.credential).encode())

    def secrets(self) -> Sequence[str]:
        return list(self.credential.values())

    def client(self) -> Any:
        keys = {f"aws_{name}": value for name, value in self.credential.items()}
        return boto3.client("kms", region_name=REGION, endpoint_url=self.server.url, **keys)


class GcpBench(Bench):
    def __init__(self, base: Path, server: CloudKmsServer, transport: str) -> None:
        super().__init__(base)
        self.server, self.kms = server, server.kms
        self.keeper = server.keeper
        self.admin = server.orchestrator
        self.uri = server.uri(transport)
        self.admin_uri = f"{self.uri}&keeper={self.keeper['client_email']}"
        for directory, credential in ((self.directory, self.keeper), (self.admin_directory, self.admin)):
            write_atomically(directory / "gcp.json", json.dumps(credential).encode())
            (directory / "gcp-ca.pem").write_bytes(server.certificate)

    def mend(self) -> None:
        self.kms.trouble, self.kms.ahead = lambda method, answer: answer, timedelta(0)

    def secrets(self) -> Sequence[str]:
        return [part for pem in (self.keeper, self.admin) for part in pem["private_key"].split("\n")[1:-2]]

    def key_name(self, tenant: UUID) -> str:
        return f"{PARENT}/keyRings/wardkey-{tenant}/cryptoKeys/kek"


class AzureBench(Bench):
    def __init__(self, base: Path, server: KeyVault) -> None:
        super().__init__(base)
        self.server = server
        self.uri = self.admin_uri = server.uri
        self.keeper, self.admin = server.make_identity(USER), server.make_identity(OFFICER)
        for directory, credential in ((self.directory, self.keeper), (self.admin_directory, self.admin)):
            write_atomically(directory / "azure.json", json.dumps(credential).encode())
            (directory / "azure-ca.pem").write_bytes(server.certificate)

    def mend(self) -> None:
        self.server.trouble, self.server.change = lambda operation: None, lambda operation, answer: answer
        self.server.is_protected, self.server.deleting = False, 0

    def secrets(self) -> Sequence[str]:
        return [each["client_secret"] for each in (self.keeper, self.admin)]
