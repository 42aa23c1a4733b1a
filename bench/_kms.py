"""What the benches of keys share: a keeper of their own in place of the home's, and the KMSs it asks.

OpenBao and the Cloud KMS server are those that the tests use, each in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from wardkey_core import keeper_client as client

from wardkey.embedded import Cluster, kms_choice
from wardkey.embedded.kms_choice import Choice
from wardkey.errors import KeeperUnavailable
from wardkey.kms import configured

__all__ = ["PROVIDERS", "Provider", "keeper", "provider"]

# tests/support is imported where it is needed: it lies beside this directory, in no package.
sys.path.append(str(Path(__file__).parent.parent))


@dataclass(frozen=True, slots=True)
class Provider:
    """A KMS that is there. ``requests``: how many it was sent, by name; None where it does not say."""

    name: str
    choice: Choice | None
    requests: Callable[[], dict[str, int]] | None = None


@contextmanager
def provider(name: str) -> Iterator[Provider]:
    """Start the KMS of that name, of ``PROVIDERS``, and stop it afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="wardkey-bench-kms") as directory,
        PROVIDERS[name](Path(directory)) as started,
    ):
        yield started


@contextmanager
def _local(directory: Path) -> Iterator[Provider]:
    yield Provider("local", None)


@contextmanager
def _openbao(directory: Path) -> Iterator[Provider]:
    from tests.support.openbao import KEEPER, ORCHESTRATOR, OpenBao

    server = OpenBao()
    try:
        for name in (KEEPER, ORCHESTRATOR):
            (directory / name).mkdir()
            server.give_credential(directory / name, name)
        credential, admin = directory / KEEPER / "vault.json", directory / ORCHESTRATOR / "vault.json"
        admin_uri = f"{server.uri}&keeper={KEEPER}"
        yield Provider("OpenBao", Choice(server.uri, admin_uri, credential, admin))
    finally:
        server.remove()


@contextmanager
def _cloud_kms(directory: Path) -> Iterator[Provider]:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve_cloud_kms, args=(theirs, str(directory)), daemon=True)
    process.start()
    theirs.close()

    def requests() -> dict[str, int]:
        ours.send(None)
        counted: dict[str, int] = ours.recv()
        return counted

    try:
        uri, keeper = ours.recv()
        own, admin, ca = (directory / name for name in ("keeper.json", "orchestrator.json", "ca.pem"))
        yield Provider("Cloud KMS", Choice(uri, f"{uri}&keeper={keeper}", own, admin, ca), requests)
    finally:
        ours.close()
        process.join(10)


def _serve_cloud_kms(pipe: Pipe, directory: str) -> None:
    """Serve until the other side hangs up; tell it how many calls there were whenever it asks."""
    from tests.support.cloud_kms_server import CloudKmsServer

    server = CloudKmsServer()
    for name in ("keeper", "orchestrator"):
        Path(directory, f"{name}.json").write_text(json.dumps(getattr(server, name)))
        Path(directory, f"{name}.json").chmod(0o600)
    Path(directory, "ca.pem").write_bytes(server.certificate)
    pipe.send((server.uri("grpc"), server.keeper["client_email"]))
    try:
        while True:
            pipe.recv()
            pipe.send(dict(server.kms.calls))
    except EOFError:
        server.stop()


PROVIDERS = {"local": _local, "OpenBao": _openbao, "Cloud KMS": _cloud_kms}


@contextmanager
def keeper(cluster: Cluster, *options: str, kms: Provider | None = None) -> Iterator[Path]:
    """Run a keeper with ``options`` in place of the home's, the cell's keys in ``kms``; yield its socket."""
    home, socket = cluster.home, cluster.home.keeper_socket
    sides = kms_choice.sides(home)
    before = [side.read() for side in sides]
    if kms and kms.choice:
        kms_choice.use(home, kms.choice)
    command = [sys.executable, "-m", "wardkey.keeper", "--directory", str(home.keeper)]
    command += ["--socket", str(socket), *options, "--admin-uid", str(os.getuid())]
    command += ["--allow-uid", str(home.server_user().uid)]
    if os.getuid() == 0:
        command += ["--run-as", f"{home.keeper_user().uid}:{home.server_user().gid}"]
    cluster.keeper.stop()
    try:
        with home.keeper_log.open("ab") as log, subprocess.Popen(command, stderr=log) as process:
            try:
                _wait(process, socket)
                yield socket
            finally:
                process.terminate()
                process.wait()
    finally:
        for side, configuration in zip(sides, before, strict=True):
            configured.write(side.directory, configuration, (side.owner.uid, side.owner.gid))
        cluster.keeper.start()


def _wait(process: subprocess.Popen[bytes], socket: Path) -> None:
    for _ in range(1000):
        try:
            client.status(socket)
            return
        except KeeperUnavailable:
            if process.poll() is not None:
                break
            time.sleep(0.01)
    raise AssertionError("the keeper did not start; see its log")
