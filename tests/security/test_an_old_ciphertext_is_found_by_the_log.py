"""Attack 64: an old ciphertext of the same cell, put back with the audit trigger off, is told by the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.cli import Wardkey
from tests.support.database import Connection, Database

_LEAF = "sealed_acme.patients"


@pytest.fixture
def ward(database: Database) -> Iterator[Connection]:
    with database.tenant("acme", role="ADMIN") as ward:
        ward.execute(
            "insert into patients (name, ssn, birth_date) values"
            " ('Ada', '999-1', '1815-12-10'), ('Bob', null, null), ('Cy', '999-3', null)"
        )
        yield ward


@pytest.fixture
def compare(database: Database) -> Any:
    wardkey = Wardkey(database.cluster.home.path)
    on = ["--json", "--dsn", database.dsn(), "audit", "compare", "--tenant", "acme"]

    def compare(*words: str, code: int = 0) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(wardkey(*on, *words, code=code).stdout)
        return report

    return compare


@contextmanager
def unwatched(admin: Connection) -> Iterator[None]:
    """Weaken the leaf as the attacker does: its audit triggers off for a moment."""
    admin.execute(f"alter table {_LEAF} disable trigger user")
    try:
        yield
    finally:
        for name in ("ward_audit", "ward_audit_truncate"):
            admin.execute(f"alter table {_LEAF} enable always trigger {name}")


def problems(report: dict[str, Any]) -> list[tuple[str, str, list[str] | None]]:
    return sorted((row["row"], row["problem"], row["columns"]) for row in report["differences"])


def test_an_old_ciphertext_opens_and_is_named(database, ward, compare):
    with database.admin() as admin:
        old = admin.execute(f"select name from {_LEAF} where id = 1").fetchone()[0]
        ward.execute("update patients set name = 'Ada Lovelace' where id = 1")
        last = admin.execute("select max(id) from tenant_acme.audit_log where kind = 'w'").fetchone()[0]
        assert compare()["differences"] == []
        with unwatched(admin):
            admin.execute(f"update {_LEAF} set name = %s where id = 1", [old])
        assert ward.execute("select name from patients where id = 1").fetchone() == ("Ada",), "it opens"
        report = compare(code=4)
        assert problems(report) == [("1", "differs", ["name"])]
        assert report["differences"][0]["entry"] == last, "the one that says what it should be"
        ward.execute("update patients set name = 'Ada Byron' where id = 1")
        assert compare()["differences"] == []


def test_whatever_was_done_without_an_entry_is_named(database, ward, compare):
    with database.admin() as admin:
        ward.execute("delete from patients where id = 3")
        with unwatched(admin):
            admin.execute(f"update {_LEAF} set city = 'Gotham', ssn = null where id = 1")
            admin.execute(f"delete from {_LEAF} where id = 2")
            admin.execute(
                f"insert into {_LEAF} (tenant_id, id, name) select tenant_id, n, name"
                f" from {_LEAF}, (values (3), (4)) as v (n) where id = 1"
            )
        assert problems(compare(code=4)) == [
            ("1", "differs", ["city", "ssn"]),
            ("2", "missing", None),
            ("3", "the log says it went", None),
            ("4", "not in the log", None),
        ]
        assert len(compare("--most", "1", code=4)["differences"]) == 1
        assert compare("--most", "1", code=4)["tables"][0]["different"] == 4
        assert compare("--table", "patients", code=4)["tables"][0]["rows"] == 3


def test_what_the_log_follows_is_no_difference(database, ward, compare):
    """Changed keys, deleted and inserted again, emptied, long values, DDL, and settings of the session."""
    with database.admin() as admin:
        ward.execute("update patients set id = 30, name = 'Cyd' where id = 3")
        ward.execute("update patients set id = 3 where id = 30")
        ward.execute("delete from patients where id = 2")
        ward.execute("insert into patients (id, name, city) values (2, 'Bob again', null)")
        admin.execute(
            "create table clinic.lab (code char(6), day int, note text, sealed text, f float8, t timestamptz,"
            " i interval, j json, b bytea, n numeric, a text[], primary key (code, day));"
            "select ward.protect('clinic.lab', seal => '{sealed}')"
        )
        ward.execute(
            "set extra_float_digits = -15; set timezone = 'Asia/Kathmandu'; set intervalstyle = iso_8601"
        )
        ward.execute(
            "insert into lab select 'c' || n, n, repeat('x', n * 30000), repeat('y', n * 20000), 0.1 + n,"
            " now(), '1 day 2 h', '{\"a\":  1, \"a\": 2}', '\\\\x00ff', 1.00, '{a,NULL,\"b c\"}'"
            " from generate_series(0, 4) as n"
        )
        ward.execute("update lab set day = 20, note = 'moved' where day = 2")
        ward.execute("update lab set note = repeat('z', 70000) where day = 1")
        admin.execute("alter table clinic.lab add column later int default 7")
        report = compare()
        assert report["differences"] == []
        counts = {row["table"]: row for row in report["tables"]}
        assert counts["patients"]["rows"] == 3 and counts["lab"]["rows"] == 5
        assert counts["lab"]["unknown"] == 5 + 8, (
            "a column that was added, and those of the row whose key changed"
        )
        admin.execute("truncate sealed_acme.lab")
        ward.execute("insert into lab (code, day) values ('c1', 1)")
        assert compare()["differences"] == []


def test_what_was_resealed_cannot_be_told_but_an_older_version_is(database, ward, compare):
    with database.admin() as admin:
        wardkey = Wardkey(database.cluster.home.path)
        old = admin.execute(f"select name from {_LEAF} where id = 1").fetchone()[0]
        ward.execute("update patients set name = 'Ada Lovelace' where id = 1")
        on = ["--dsn", database.dsn(), "keys", "rotate", "acme", "--reason", "test", "--rate", "0"]
        wardkey(*on)
        report = compare()
        assert report["differences"] == [] and report["tables"][0]["resealed"] > 0
        with unwatched(admin):
            admin.execute(f"update {_LEAF} set name = %s where id = 1", [old])
        assert problems(compare(code=4)) == [("1", "differs", ["name"])]


def test_rows_older_than_a_pruned_log_are_counted_and_not_named(database, ward, compare):
    with database.admin() as admin:
        admin.execute("set session_replication_role = replica")
        admin.execute("delete from tenant_acme.audit_log where kind = 'w'")
        admin.execute(
            "select ward_internal.log_event(id, 'log pruned') from ward_internal.tenants where slug = 'acme'"
        )
        ward.execute("update patients set city = 'Salem' where id = 1")
        report = compare()
        assert report["differences"] == []
        assert (report["tables"][0]["older"], report["tables"][0]["rows"]) == (2, 3)
        with unwatched(admin):
            admin.execute(f"update {_LEAF} set city = 'Gotham' where id = 1")
        assert problems(compare(code=4)) == [("1", "differs", ["city"])]
