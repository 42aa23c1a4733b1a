"""The service with a KMS that hangs, fails or lies: deadlines hold and nothing else waits (attack 43)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from wardkey_core.errors import KeeperUnavailable, KeyRefused
from wardkey_core.wire import frame, to_base64

from tests.support.keepers import ACME, GLOBEX
from wardkey.daemon.listening import bind
from wardkey.embedded.issuer import EmbeddedIssuer
from wardkey.keeper import server
from wardkey.keeper.budgets import BUDGETS_FILE, KeeperBudgets
from wardkey.keeper.checkpoints import CHECKPOINTS_FILE, Checkpoints
from wardkey.keeper.counters import COUNTERS_FILE, Counters
from wardkey.keeper.ended import ENDED_FILE, Ended
from wardkey.keeper.grants import GRANTS_FILE, Grants
from wardkey.keeper.journal import Peer, ReleaseLog
from wardkey.keeper.ledger import Ledger
from wardkey.keeper.policy import KeeperPolicy
from wardkey.keeper.providers import Providers
from wardkey.keeper.requests import Provision, Release
from wardkey.keeper.service import Service
from wardkey.keeper.signing import SigningKey
from wardkey.keeper.trust import TrustedIssuers, write_documents
from wardkey.kms import KekRef, KmsUnavailable
from wardkey.kms.providers.local import LocalKms

PEER = Peer(uid=0, pid=1)


class TroubledKms(LocalKms):
    """The local KMS with a trouble of the test's choosing before each unwrap of ``whose`` KEK."""

    def __init__(self, directory: Path) -> None:
        super().__init__("local:", directory)
        self.trouble: Callable[[], object] = lambda: None
        self.whose = ACME
        self.unwraps = 0

    def unwrap(self, kek: KekRef, wrapped: bytes, aad: bytes) -> bytes:
        self.unwraps += 1
        if kek.name.endswith(self.whose):
            instead = self.trouble()
            if isinstance(instead, bytes):
                return instead
        return super().unwrap(kek, wrapped, aad)


class Bench:
    def __init__(self, directory: Path, deadline: float) -> None:
        self.kms = TroubledKms(directory)
        self.issuer = EmbeddedIssuer.open(directory / "issuer", "test")
        write_documents(directory / "issuers.json", [self.issuer.document()])
        self.reports: list[str] = []
        trust = TrustedIssuers(directory / "issuers.json", self.reports.append)
        log = ReleaseLog(directory / "release.log")
        report = self.reports.append
        providers = Providers(directory, report, open_=lambda uri, directory: self.kms)
        ledger, signing = Ledger(directory / "ledger.jsonl", report), SigningKey(directory / "signing.key")
        checkpoints = Checkpoints(directory / CHECKPOINTS_FILE, signing, report)
        policy = KeeperPolicy(directory / "policy.json", report)
        self.service = Service(
            providers,
            trust,
            policy,
            ledger,
            signing,
            log,
            checkpoints,
            Grants(directory / GRANTS_FILE, report),
            KeeperBudgets(directory / BUDGETS_FILE, report),
            Counters(directory / COUNTERS_FILE, report),
            Ended(directory / ENDED_FILE, directory / "sock", report),
            deadline=deadline,
            report=report,
        )

    async def provision(self, tenant: str = ACME) -> Release:
        made = await self.service.answer(Provision(tenant=UUID(tenant)), PEER)
        wrapped, token = base64.b64decode(made["wrapped"]), self.issuer.sign_token(tenant, "dr.grey", "ADMIN")
        return Release(
            tenant=UUID(tenant),
            version=1,
            kek=made["kek"],
            kek_version=made["kek_version"],
            wrapped=wrapped,
            commitment=base64.b64decode(made["commitment"]),
            classes=["clinical"],
            token=token,
        )

    async def ask(self, request: Release) -> dict[str, Any]:
        return await self.service.answer(request, PEER)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, deadline=1.0)
    yield bench
    bench.service.close()


def test_twenty_concurrent_asks_are_one_call(bench: Bench) -> None:
    async def run() -> None:
        request = await bench.provision()
        bench.kms.trouble = lambda: time.sleep(0.2)
        answers = await asyncio.gather(*(bench.ask(request) for _ in range(20)))
        assert len({answer["classes"]["clinical"] for answer in answers}) == 1
        assert bench.kms.unwraps == 1

    asyncio.run(run())


def test_the_log_goes_to_the_disk_at_once_and_no_key_waits_for_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = threading.Event(), threading.Event()

    def flush(descriptor: int) -> None:
        begun.set()
        goes_on.wait(20)

    async def run() -> None:
        monkeypatch.setattr(os, "fdatasync", flush)
        request = await bench.provision()
        assert await asyncio.to_thread(begun.wait, 10)
        for _ in range(10):
            assert await asyncio.wait_for(bench.ask(request), 5)
        begun.clear()
        goes_on.set()
        assert await asyncio.to_thread(begun.wait, 10)  # for the ten

    asyncio.run(run())


def test_a_hanging_call_ends_in_time_and_others_are_answered(bench: Bench) -> None:
    release = threading.Event()

    async def run() -> None:
        acme, globex = await bench.provision(ACME), await bench.provision(GLOBEX)
        bench.kms.trouble = lambda: release.wait(20) and None
        begin = time.monotonic()
        hanging = asyncio.gather(*(bench.ask(acme) for _ in range(30)), return_exceptions=True)
        await asyncio.sleep(0)
        assert await bench.ask(globex)
        assert time.monotonic() - begin < 0.5
        failures = await hanging
        assert time.monotonic() - begin < 1.5
        assert all(isinstance(failure, KeeperUnavailable) for failure in failures)
        assert bench.kms.unwraps == 2
        release.set()
        bench.kms.trouble = lambda: None
        assert await bench.ask(acme)

    try:
        asyncio.run(run())
    finally:
        release.set()


def test_a_passing_failure_passes(bench: Bench) -> None:
    failures = iter([KmsUnavailable("down"), KmsUnavailable("down")])

    def fail() -> None:
        for failure in failures:
            raise failure

    async def run() -> None:
        request = await bench.provision()
        bench.kms.trouble = fail
        assert await bench.ask(request)
        assert bench.kms.unwraps == 3

    asyncio.run(run())


@pytest.mark.parametrize("garbage", [b"", bytes(31), bytes(33), bytes(1000)], ids=len)
def test_garbage_from_the_kms_is_not_a_key(bench: Bench, garbage: bytes) -> None:
    async def run() -> None:
        request = await bench.provision()
        bench.kms.trouble = lambda: garbage
        with pytest.raises(KeyRefused):
            await bench.ask(request)
        bench.kms.trouble = lambda: None
        assert len(base64.b64decode((await bench.ask(request))["classes"]["clinical"])) == 32

    asyncio.run(run())


def test_an_unforeseen_failure_is_refused_and_not_repeated_in_words(bench: Bench) -> None:
    def explode() -> None:
        raise RuntimeError("secret-4711")

    async def run() -> None:
        request = await bench.provision()
        bench.kms.trouble = explode
        with pytest.raises(KeyRefused) as caught:
            await bench.ask(request)
        assert "secret" not in caught.value.message + "".join(bench.reports)
        assert any("RuntimeError" in line for line in bench.reports)

    asyncio.run(run())


def test_no_release_without_its_line_in_the_log(bench: Bench, tmp_path: Path) -> None:
    async def run() -> None:
        request = await bench.provision()
        assert await bench.ask(request)
        (tmp_path / "release.log").unlink()
        (tmp_path / "release.log").mkdir()
        with pytest.raises(KeeperUnavailable):
            await bench.ask(request)
        (tmp_path / "release.log").rmdir()
        assert await bench.ask(request)

    asyncio.run(run())


def test_a_tenant_whose_kms_hangs_leaves_places_to_others(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 20)
    release, path = threading.Event(), tmp_path / "sock"

    async def ask(request: Release) -> dict[str, Any]:
        key = request.key
        asked = {"op": "release", "tenant": str(key.tenant), "version": 1, "token": request.token}
        asked |= {"commitment": to_base64(request.commitment), "classes": request.classes}
        asked |= {"kek": key.kek.name, "kek_version": key.kek.version, "wrapped": to_base64(key.wrapped)}
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(frame(asked))
        body = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        writer.close()
        return dict(json.loads(body))

    async def run() -> None:
        acme, globex = await bench.provision(ACME), await bench.provision(GLOBEX)
        bench.kms.trouble = lambda: release.wait(20) and None
        stop, served = asyncio.Event(), server.SocketServer(bench.service, frozenset([os.geteuid()]), print)
        serving = asyncio.create_task(served.run(bind(path, None, "a keeper"), stop))
        hanging = [asyncio.create_task(ask(acme)) for _ in range(18)]
        refused, _ = await asyncio.wait(hanging, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result()["sqlstate"] for task in refused} == {"WK113"}
        assert (await ask(globex))["ok"]
        answers = await asyncio.gather(*hanging)
        told = Counter(answer["sqlstate"] for answer in answers)
        assert set(told) == {"WK102", "WK113"}
        release.set()
        bench.kms.trouble = lambda: None
        assert (await ask(acme))["ok"]
        stop.set()
        await serving

    try:
        asyncio.run(run())
    finally:
        release.set()
