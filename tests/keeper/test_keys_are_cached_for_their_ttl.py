"""One KMS call per key and TTL; keys outlive a dead KMS for the TTL and no longer (attacks 43, 44)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from wardkey_core.errors import KeeperUnavailable, KeyRefused

from tests.support.keepers import ACME, GLOBEX, Keeper, new_tenant


def test_many_asking_at_once_cost_one_kms_call(keeper: Keeper) -> None:
    requests = [keeper.provision(tenant) for tenant in (ACME, GLOBEX, *(new_tenant() for _ in range(3)))]
    before = keeper.status()["kms_calls"]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: keeper.ask(**requests[n % 5])["classes"]["clinical"], range(100)))
    assert len(set(answers)) == 5
    status = keeper.status()
    assert status["kms_calls"] == before + 5
    assert status["cached_keys"] == 5
    assert status["releases"] == 100


def test_keys_outlive_the_kms_for_the_ttl_only(new_keeper: Keeper) -> None:
    keeper = new_keeper.start("--ttl", "1.5")
    warm, cold = keeper.provision(ACME), keeper.provision(ACME)
    dek, begin = keeper.ask(**warm)["classes"]["clinical"], time.monotonic()
    keeper.break_kms()
    with pytest.raises(KeeperUnavailable):
        keeper.ask(**cold)
    assert keeper.ask(**warm)["classes"]["clinical"] == dek
    assert time.monotonic() - begin < 1.5, "too slow a machine for this test"
    time.sleep(begin + 1.6 - time.monotonic())
    with pytest.raises(KeeperUnavailable):
        keeper.ask(**warm)
    keeper.mend_kms()
    assert keeper.ask(**warm)["classes"]["clinical"] == dek


def test_keys_nobody_asks_for_leave_memory(new_keeper: Keeper) -> None:
    keeper = new_keeper.start("--ttl", "0.2")
    keeper.ask(**keeper.provision())
    deadline = time.monotonic() + 5
    while keeper.status()["cached_keys"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_passing_failures_are_tried_again_and_lasting_ones_are_not(keeper: Keeper) -> None:
    request = keeper.provision()
    keeper.break_kms()
    before, begin = keeper.status()["kms_calls"], time.monotonic()
    with pytest.raises(KeeperUnavailable):
        keeper.ask(**request)
    assert keeper.status()["kms_calls"] - before == 4
    assert 0.2 < time.monotonic() - begin < 5
    keeper.kek_file().unlink()
    before = keeper.status()["kms_calls"]
    with pytest.raises(KeyRefused):
        keeper.ask(**request)
    assert keeper.status()["kms_calls"] - before == 1


def test_a_failure_is_not_cached_and_another_tenant_does_not_feel_it(keeper: Keeper) -> None:
    acme, globex = keeper.provision(ACME), keeper.provision(GLOBEX)
    keeper.break_kms(ACME)
    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(keeper.ask, **acme)
        begin = time.monotonic()
        assert keeper.ask(**globex)
        assert time.monotonic() - begin < 0.5
        assert isinstance(failing.exception(), KeeperUnavailable)
    keeper.mend_kms(ACME)
    assert keeper.ask(**acme)
