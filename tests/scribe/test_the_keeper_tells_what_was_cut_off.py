"""A log whose end was cut off together with its checkpoints looks whole; the keeper remembers more."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from wardkey_core.log.checkpoint import Checkpoint

from tests.audit.logs import Log
from tests.scribe.scribes import PLATFORM, Scribe, new_tenant, wait_signed, write
from tests.support.cli import Wardkey
from tests.support.database import Connection
from wardkey.audit.remembered import Remembered, compare
from wardkey.audit.report import Report
from wardkey.keeper.signing import SigningKey

Verify = Callable[..., dict[str, Any]]


@pytest.fixture
def tenant(scribe: Scribe) -> UUID:
    """A log of three entries under two checkpoints; its scribe has ended."""
    scribe.start()
    with scribe.database.admin() as connection:
        tenant = new_tenant(connection)
        write(connection, tenant, 2)
        wait_signed(connection, tenant, 2)
        write(connection, tenant)
        connection.execute("select pg_notify('wardkey_checkpoint', %s)", [str(tenant)])
        wait_signed(connection, tenant, 3)
        assert scribe.stop() == 0
    return tenant


@pytest.fixture
def verify(scribe: Scribe, tenant: UUID) -> Verify:
    wardkey = Wardkey(scribe.database.cluster.home.path)

    def verify(*more: str, code: int = 0, keeper: Path = scribe.keeper.socket, log: UUID = tenant) -> Any:
        live = ["--dsn", scribe.database.dsn(), "audit", "verify", "--live", "--tenant", str(log)]
        return wardkey.json(*live, "--keeper", str(keeper), *more, code=code)

    return verify


def cut(connection: Connection, tenant: UUID) -> None:
    """Take the last entry away, as a superuser can, and all that tells of it."""
    connection.execute(
        "with last as (delete from ward_internal.audit_batches where tenant_id = %(tenant)s and"
        " first_position >= 2 returning ids)"
        " delete from ward_internal.audit_log using last where tenant_id = %(tenant)s and id = any (ids)",
        {"tenant": tenant},
    )
    connection.execute(
        "delete from ward_internal.audit_checkpoints where tenant_id = %s and size > 2", [tenant]
    )


def test_an_end_that_was_cut_off_with_its_checkpoints_is_named(
    scribe: Scribe, tenant: UUID, verify: Verify, tmp_path: Path
) -> None:
    facts = verify()
    assert facts["ok"] and facts["keeper_agrees"] and facts["keeper"] is None and facts["entries"] == 3
    assert verify(log=PLATFORM)["keeper_agrees"]
    with scribe.database.admin() as connection:
        cut(connection, tenant)
        facts = verify(code=4)
        assert facts["defect"]["kind"] == "cut tail" and facts["defect"]["position"] == 2
        unasked = verify(keeper=tmp_path / "nobody")
        assert unasked["ok"] and not unasked["keeper_agrees"], "without the keeper it looks whole"
        assert unasked["keeper"].startswith("not compared with what the keeper signed")
    wardkey, file = Wardkey(scribe.database.cluster.home.path), str(tmp_path / "log.jsonl")
    wardkey(
        *("--dsn", scribe.database.dsn(), "audit", "export", "--tenant", str(tenant), "--output", file),
    )
    facts = wardkey.json("audit", "verify", file, "--keeper", str(scribe.keeper.socket))
    assert facts["ok"] and "the keeper has signed more since, checkpoint 2 of 3" in facts["keeper"]


def test_a_last_checkpoint_that_was_replaced_is_named(scribe: Scribe, tenant: UUID, verify: Verify) -> None:
    """The holder of the key can sign another one; not one that the keeper remembers."""
    with scribe.database.admin() as connection:
        query = "select checkpoint from ward_internal.audit_checkpoints where tenant_id = %s and size = 3"
        row = connection.execute(query, [tenant]).fetchone()
        assert row
        document = json.loads(row[0])
        last = Checkpoint.from_document(document | {"at": document["at"].replace("20", "21", 1)})
        key = SigningKey(scribe.keeper.directory / "signing.key")
        signature = key.sign_checkpoint(last.encode().decode())
        connection.execute(
            "update ward_internal.audit_checkpoints set checkpoint = %s, signature = %s"
            " where tenant_id = %s and size = 3",
            [last.encode().decode(), signature, tenant],
        )
    assert verify(code=4)["defect"]["kind"] == "fork"


def test_a_keeper_that_lost_its_memory_is_named(scribe: Scribe, tenant: UUID, verify: Verify) -> None:
    memory = scribe.keeper.directory / "checkpoints.jsonl"
    lines = memory.read_bytes().splitlines(keepends=True)
    first = next(line for line in lines if str(tenant).encode() in line and b'"number":1' in line)
    for kept, said in ((first, "remembers 1 as the last one"), (b"", "remembers no checkpoint")):
        scribe.keeper.stop()
        memory.write_bytes(kept)
        scribe.keeper.start()
        facts = verify()
        assert facts["ok"] and said in facts["keeper"]


def test_what_is_signed_and_about_to_be_stored_is_waited_for(
    scribe: Scribe, tenant: UUID, verify: Verify
) -> None:
    with scribe.database.admin() as connection:
        moved = (
            "with gone as (delete from ward_internal.audit_checkpoints where tenant_id = %s and size = 3"
            " returning tenant_id, checkpoint, frontier)"
            " insert into ward_internal.audit_unsigned select * from gone"
        )
        connection.execute(moved, [tenant])  # as it is when the keeper has just answered
        scribe.start()
        facts = verify()
        assert facts["ok"] and facts["keeper_agrees"] and facts["checkpoints"] == 2
        assert scribe.stop() == 0


def test_a_log_that_goes_on_meanwhile_is_no_loss_of_memory() -> None:
    """The keeper was asked before, the log was read after; asked again, it knows more."""
    then, now = (Remembered(number, number, sha256(bytes([number])).digest()) for number in (1, 2))
    for again, said in ((now, False), (then, True)):
        report = Report(newest=Log.of(1, 2).checkpoints[1].checkpoint)
        compare(report, then, live=True, again=lambda again=again: again)
        assert report.ok and bool(report.unlike) == said
