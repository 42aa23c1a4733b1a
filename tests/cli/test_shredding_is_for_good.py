"""Shredding destroys a tenant's keys and ward, nothing else, once it is confirmed, whatever interrupts it."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from wardkey_core import keeper_client as client

from tests.support.cli import Wardkey
from tests.support.database import Database
from tests.support.dumps import bring_back, dump, empty_database
from wardkey.embedded import Cluster
from wardkey.tenants.certificate import Certificate

_STEPS = 6
_KILLED_AFTER = """
import os, signal, sys
import psycopg
from pathlib import Path
from wardkey.tenants import shredding
from wardkey.keys.kek import Keks

dsn, orchestrator, keeper, slug, code, steps = sys.argv[1:]
left = int(steps)

def say(text):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)

with psycopg.connect(dsn, autocommit=True) as connection:
    shredding.shred(connection, Keks(Path(orchestrator), Path(keeper)), Path(keeper), slug, code, "me", say)
"""


@dataclass(frozen=True)
class Doomed:
    """A tenant of a test's own, with two rows in one table, and the command for its database."""

    database: Database
    slug: str

    def __call__(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        wardkey = Wardkey(self.database.cluster.home.path)
        return wardkey("tenant", *arguments, "--dsn", self.database.dsn(), code=code)

    def plan(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self("shred", self.slug, "--json").stdout)
        return facts

    def shred(self) -> Certificate:
        done = self("shred", self.slug, "--confirm", self.plan()["code"])
        return Certificate.parse(done.stdout.encode())

    def query(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        with self.database.admin() as admin:
            return admin.execute(query, arguments or None).fetchall()  # type: ignore[arg-type]

    def certificate(self) -> bytes:
        return self("shred", self.slug).stdout.encode()

    def keeper(self) -> dict[str, Any]:
        return client.status(self.database.cluster.home.keeper_socket)

    def check_nothing_is_left(self) -> None:
        role = f"tenant_{self.slug}"
        assert self.query("select status from ward.tenants where slug = %s", self.slug) == [("shredded",)]
        assert self.query("select from pg_namespace where nspname = %s", role) == []
        assert self.query("select from pg_roles where rolname = %s", role) == []
        keys = "select state, wrapped from ward_internal.tenant_keys where tenant_id = %s"
        assert set(self.query(keys, self.database.tenant_id(self.slug))) == {("destroyed", None)}


@pytest.fixture
def doomed(database: Database) -> Doomed:
    return _doomed(database)


def _doomed(database: Database) -> Doomed:
    slug = database.new_tenant()
    with database.tenant(slug, role="ADMIN") as ward:
        ward.execute("insert into patients (name) values ('Ann'), ('Bob')")
    with database.tenant("acme", role="ADMIN") as other:
        other.execute("insert into patients (name) values ('Ada')")
    return Doomed(database, slug)


def _read(database: Database, slug: str) -> list[tuple[Any, ...]]:
    with database.tenant(slug, role="VIEWER") as ward:
        return ward.execute("select name from patients order by id").fetchall()


def test_first_step_names_what_goes_and_destroys_nothing(doomed: Doomed) -> None:
    before, events = doomed.keeper(), doomed.query("select count(*) from ward.events")
    facts = doomed.plan()
    assert facts["tables"] == [{"table": "patients", "rows": 2}]
    assert [key["state"] for key in facts["keys"]] == ["active"]
    assert [kek["state"] for kek in facts["keks"]] == ["enabled"]
    text = doomed("shred", doomed.slug).stdout
    assert f"--confirm {facts['code']}" in text and "patients" in text and "Nothing has been done" in text
    assert doomed.plan() == facts
    assert _read(doomed.database, doomed.slug) == [("Ann",), ("Bob",)]
    assert doomed.keeper()["ledger"] == before["ledger"]
    assert doomed.query("select count(*) from ward.events") == events
    assert doomed.query("select status from ward.tenants where slug = %s", doomed.slug) == [("active",)]


def test_wrong_code_is_refused(doomed: Doomed) -> None:
    code = doomed.plan()["code"]
    assert "WK211" in doomed("shred", doomed.slug, "--confirm", "0" * len(code), code=1).stderr
    assert "WK211" in doomed("shred", "acme", "--confirm", code, code=1).stderr
    with doomed.database.admin() as admin:
        admin.execute("select ward.rotate_key(%s, 'the code is of another key by now')", [doomed.slug])
    assert "WK211" in doomed("shred", doomed.slug, "--confirm", code, code=1).stderr
    assert doomed.query("select count(*) from ward_internal.shreddings") == [(0,)]
    assert _read(doomed.database, doomed.slug) == [("Ann",), ("Bob",)]


def test_unknown_tenant_is_refused(doomed: Doomed) -> None:
    assert "WK203" in doomed("shred", "nobody", code=1).stderr
    assert "WK203" in doomed("shred", "nobody", "--confirm", "x", code=1).stderr


def test_certificate_says_what_was_destroyed_and_the_keeper_vouches_for_it(doomed: Doomed) -> None:
    facts = doomed.plan()
    certificate = doomed.shred()
    certificate.verify(base64.b64decode(doomed.keeper()["public_key"]))
    said = certificate.statement
    assert said["tenant"]["id"] == str(doomed.database.tenant_id(doomed.slug))
    assert said["ward"]["tables"] == facts["tables"]
    assert said["data_keys"] == facts["keys"]
    assert [(kek["kek"], kek["version"], kek["state"]) for kek in said["keks"]] == [
        (facts["keys"][0]["kek"], "1", "destroyed")
    ]
    assert ["copies of the keeper's directory" in text for text in said["remains"]] == [True]
    assert said["operator"]
    assert said["begun_at"] <= said["certified_at"]
    assert "Ann" not in certificate.to_bytes().decode()


def test_nothing_is_left_but_events_and_certificate(doomed: Doomed) -> None:
    certificate = doomed.shred()
    doomed.check_nothing_is_left()
    kinds = doomed.query("select kind from ward.events where slug = %s order by id", doomed.slug)
    assert [kind for (kind,) in kinds] == ["provisioned", "shredding", "shredded"]
    assert doomed.certificate() == certificate.to_bytes()
    assert doomed("shred", doomed.slug, "--confirm", "whatever").stdout.encode() == certificate.to_bytes()
    assert doomed.query("select count(*) from ward_internal.shreddings") == [(1,)]


def test_other_tenants_do_not_notice(doomed: Doomed) -> None:
    with doomed.database.tenant("acme", role="ADMIN") as acme:
        doomed.shred()
        acme.execute("insert into patients (name) values ('Eve')")
    assert _read(doomed.database, "acme") == [("Ada",), ("Eve",)]
    assert _read(doomed.database, doomed.database.new_tenant()) == []


def test_its_slug_is_not_given_again(doomed: Doomed) -> None:
    doomed.shred()
    assert "WK216" in doomed("create", doomed.slug, code=1).stderr
    for command in ("suspend", "resume"):
        assert "WK216" in doomed(command, doomed.slug, code=1).stderr
    for options in ([], ["--sealed"]):
        assert "WK216" in doomed("export", doomed.slug, "--to", "/tmp/never", *options, code=1).stderr


def test_its_connections_end_and_what_they_had_not_committed_is_not_counted(doomed: Doomed) -> None:
    with closing(doomed.database.tenant(doomed.slug)) as ward:
        ward.autocommit = False
        ward.execute("select ward.login(%s)", [doomed.database.token(doomed.slug)])
        ward.execute("insert into patients (name) values ('in flight')")
        with doomed.database.tenant("acme", role="VIEWER") as acme:
            certificate = doomed.shred()
            assert acme.execute("select 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            ward.execute("select 1")
    assert certificate.statement["ward"]["tables"] == [{"table": "patients", "rows": 2}]
    with pytest.raises(psycopg.OperationalError):
        doomed.database.tenant(doomed.slug)


@pytest.mark.parametrize("steps", range(1, _STEPS + 1))
def test_killed_after_any_step_a_rerun_ends_well(doomed: Doomed, steps: int) -> None:
    home, code = doomed.database.cluster.home, doomed.plan()["code"]
    arguments = [doomed.database.dsn(), str(home.orchestrator), str(home.keeper_socket), doomed.slug, code]
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_AFTER, *arguments, str(steps)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    with pytest.raises(psycopg.Error), closing(doomed.database.tenant(doomed.slug)) as ward:
        ward.execute("select ward.login_session(%s)", [doomed.database.token(doomed.slug)])
    if steps < _STEPS:
        assert doomed.plan()["begun_at"]
        assert "continue with" in doomed("shred", doomed.slug).stdout
        doomed("shred", doomed.slug, "--confirm", code)
    certificate = Certificate.parse(doomed.certificate())
    certificate.verify(base64.b64decode(doomed.keeper()["public_key"]))
    assert certificate.statement["ward"]["tables"] == [{"table": "patients", "rows": 2}]
    assert [kek["state"] for kek in certificate.statement["keks"]] == ["destroyed"]
    doomed.check_nothing_is_left()
    assert doomed.query("select count(*) from ward_internal.shreddings") == [(1,)]
    assert doomed.certificate() == certificate.to_bytes()
    assert _read(doomed.database, "acme") == [("Ada",)]


def test_steps_are_all_of_them(doomed: Doomed) -> None:
    """The test of the test above: there is no step after the last one that it kills at."""
    done = doomed("shred", doomed.slug, "--confirm", doomed.plan()["code"])
    assert len(done.stderr.splitlines()) == _STEPS


def test_derived_keys_leave_something_and_the_certificate_says_so(database: Database) -> None:
    Wardkey(database.cluster.home.path)(
        "tenant", "create", "derivedone", "--mode", "derived", "--dsn", database.dsn()
    )
    certificate = Doomed(database, "derivedone").shred()
    assert "master secret" in certificate.statement["remains"][0]
    assert certificate.statement["keks"] == [] and certificate.statement["key_mode"] == "derived"


def test_of_another_keeper_nothing_is_begun(doomed: Doomed, tmp_path: Path) -> None:
    code = doomed.plan()["code"]
    with doomed.database.admin() as admin:
        admin.execute("select ward.set('keeper_socket', %s)", [str(tmp_path / "socket")])
    assert "keeper of this database" in doomed("shred", doomed.slug, "--confirm", code, code=1).stderr
    assert doomed.query("select status from ward.tenants where slug = %s", doomed.slug) == [("active",)]


def test_restored_backup_is_unreadable_and_refused_by_name(
    doomed: Doomed, cluster: Cluster, tmp_path: Path
) -> None:
    file = dump(doomed.database, tmp_path / "before")
    doomed.shred()
    with empty_database(cluster) as elsewhere:
        bring_back(elsewhere, file, doomed.slug)
        assert _read(elsewhere, "acme") == [("Ada",)]
        with elsewhere.tenant(doomed.slug, role="ADMIN") as ward:
            assert ward.execute("select count(*) from patients").fetchone() == (2,)
        with pytest.raises(psycopg.Error) as refused:
            _read(elsewhere, doomed.slug)
    assert refused.value.sqlstate == "WK106"
    assert f"tenant {doomed.slug} was shredded on" in str(refused.value)
