"""The KMS goes away in the middle of rewrapping and resealing, also with its answer: a rerun ends well.

What kill -9 of command, backend, keeper and PostgreSQL do to them is in tests/keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import psycopg
import pytest

from tests.kms.benches import GcpBench
from tests.support.cloud_kms import Refusal
from tests.support.database import Connection
from wardkey.keys import rewrap as rewrapping
from wardkey.keys.registry import read_tenants
from wardkey.keys.rewrap import Result
from wardkey.keys.run import Outcome, Progress, Throttle, reseal

from .cells import SECRET, Cell, read

ROWS = 3000
Trouble = Callable[[str, Any], Any]


def away(*methods: str) -> Trouble:
    """Do what is asked and lose the answer."""

    def trouble(method: str, answer: Any) -> Any:
        if method in methods:
            raise Refusal(grpc.StatusCode.UNAVAILABLE, "gone")
        return answer

    return trouble


def well(method: str, answer: Any) -> Any:
    return answer


def test_rewrap_continues(gcp_cell: Cell, gcpkms_bench: GcpBench) -> None:
    cell, kms, slugs = gcp_cell, gcpkms_bench.kms, []
    for method in ("CreateCryptoKeyVersion", "UpdateCryptoKeyPrimaryVersion", "Encrypt", "Decrypt"):
        slug = cell.new_tenant()
        before = cell.key(slug)
        cell.forget()
        kms.trouble = away(method)
        (result,) = rewrap(cell, slug)
        assert result.trouble is not None and result.trouble.sqlstate == "WK102", method
        kms.trouble = well
        assert cold_read(cell, slug) == SECRET, method  # whatever was done by half
        kms.calls.clear()
        (result,) = rewrap(cell, slug)
        assert result.trouble is None, method
        assert kms.calls["CreateCryptoKeyVersion"] == (method == "CreateCryptoKeyVersion")
        after = cell.key(slug)
        states = {each.version: each.state for each in cell.keks.versions(cell.id(slug))}
        assert after["kek_version"] != before["kek_version"], method
        assert states[after["kek_version"]] == "enabled" and states[before["kek_version"]] == "disabled"
        slugs.append(slug)
    cell.forget()
    for slug in slugs:
        with cell.connect(slug) as connection:
            assert read(connection) == SECRET


def test_an_old_version_is_disabled_though_the_answer_is_lost(gcp_cell: Cell, gcpkms_bench: GcpBench) -> None:
    slug = gcp_cell.new_tenant()
    gcpkms_bench.kms.trouble = away("UpdateCryptoKeyVersion")
    (result,) = rewrap(gcp_cell, slug)
    assert result.trouble is None and len(result.disabled) == 1
    assert [each.state for each in gcp_cell.keks.versions(gcp_cell.id(slug))] == ["disabled", "enabled"]
    assert cold_read(gcp_cell, slug) == SECRET


def test_resealing_waits_for_the_kms_and_continues(gcp_cell: Cell, gcpkms_bench: GcpBench) -> None:
    cell, kms = gcp_cell, gcpkms_bench.kms
    slug = cell.new_tenant()
    with cell.connect(slug) as connection:
        connection.execute(
            "insert into patients (id, name, ssn) select n, 'p', n::text from generate_series(2, %s) n",
            [ROWS],
        )
    kek = cell.keks.rotate(cell.id(slug))
    with cell.database.admin() as admin:
        admin.execute(
            "select ward.rotate_key(%s, 'a test', null, false, %s, %s)", [slug, kek.name, kek.version]
        )
        moved: list[int] = []

        def cut(progress: Progress) -> None:
            if not moved:
                moved.append(progress.rows)
                kms.trouble = away("Decrypt")
                cell.forget()

        outcome = reseal_all(admin, slug, cut)
        assert (outcome.state, outcome.retired) == ("waiting", ()) and outcome.reason
        assert "key management service" in outcome.reason
        assert 0 < moved[0] < ROWS and outcome.rows < ROWS
        kms.trouble = well
        assert rows(cell, slug) == ROWS  # under two keys
        outcome = reseal_all(admin, slug)
        assert (outcome.state, outcome.retired, outcome.failed) == ("finished", (1,), 0)
        counts: dict[int, int] = dict(
            admin.execute("select version, sum(fields)::int from ward.key_rows(%s) group by 1", [slug])
        )
        assert counts == {2: 2 * ROWS}
    cell.forget()
    assert rows(cell, slug) == ROWS and cold_read(cell, slug) == SECRET


def test_a_rotation_that_gets_no_key_changes_nothing(gcp_cell: Cell, gcpkms_bench: GcpBench) -> None:
    cell, kms = gcp_cell, gcpkms_bench.kms
    slug = cell.new_tenant()
    kek = cell.key(slug)["kek"], cell.key(slug)["kek_version"]
    rotate = "select ward.rotate_key(%s, 'a test', null, false, %s, %s)"
    state = "select version, state from ward.keys where slug = %s"
    with cell.database.admin() as admin:
        for trouble in (away("Encrypt"), well):
            kms.trouble = trouble
            if trouble is well:
                assert admin.execute(rotate, [slug, *kek]).fetchone() == (2,)
            else:
                with pytest.raises(psycopg.Error) as caught:
                    admin.execute(rotate, [slug, *kek])
                assert caught.value.sqlstate == "WK102"
                assert admin.execute(state, [slug]).fetchall() == [(1, "active")]
    assert cold_read(cell, slug) == SECRET


def rewrap(cell: Cell, slug: str) -> list[Result]:
    results: list[Result] = []
    with cell.database.admin() as admin:
        tenants = read_tenants(admin, [slug])
        with rewrapping.begin(admin, slug, len(tenants)) as run:
            rewrapping.rewrap(cell.database.admin, cell.keks, tenants, run, results.append, threading.Event())
            if not any(result.trouble for result in results):
                rewrapping.finish(admin, run)
    return results


def reseal_all(admin: Connection, slug: str, watch: Callable[[Progress], None] = lambda _: None) -> Outcome:
    return reseal(admin, slug, Throttle(share=1), threading.Event(), patience=3, watch=watch)


def cold_read(cell: Cell, slug: str) -> str:
    cell.forget()
    with cell.connect(slug) as connection:
        return read(connection)


def rows(cell: Cell, slug: str) -> int:
    """Return how many rows open as what was written."""
    with cell.connect(slug) as connection:
        query = "select count(*) from patients where id = 1 or (ssn = id::text and name = 'p')"
        row = connection.execute(query).fetchone()
    assert row
    return int(row[0])
