"""Who changes the database's copy of the policy gets no key for it; a tenant narrows, and does not widen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from wardkey_core.administration import InvalidPolicy, NotAllowed
from wardkey_core.policy import CLASSES, DEFAULT, ROLES

from tests.support.database import Connection, Database, clone
from tests.support.sqlstate import refused
from wardkey.access import policy
from wardkey.embedded import Cluster
from wardkey.keeper.policy import POLICY_FILE
from wardkey.tenants import export

SCHEMA = """
create schema chart;
create table chart.people (id integer primary key, name text, born date, note text, finding text);
select ward.protect('chart.people', seal => '{"name": "identifier", "born": "quasi", "note": "note",
  "finding": "clinical"}');
create table chart.plain (id integer primary key, finding text);
select ward.protect('chart.plain', seal => '{finding}');
create table chart.of_plain (
  id integer primary key, plain integer references ward_model.chart__plain on delete cascade, finding text
);
select ward.protect('chart.of_plain', seal => '{finding}');
"""
FILL = "insert into people values (1, 'Ada', '1985-12-10', 'is worried', 'asthma')"


@pytest.fixture
def chart(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        with database.admin() as admin:
            admin.execute(SCHEMA)
        with database.tenant("acme", role="ADMIN") as connection:
            connection.execute(FILL)
        yield database
    (cluster.home.keeper / POLICY_FILE).unlink(missing_ok=True)


def _read(database: Database, role: str, column: str) -> Any:
    """Return what the role sees, or the SQLSTATE."""
    with database.tenant("acme", role=role) as connection:
        try:
            row = connection.execute(f"select {column}::text from people where id = 1").fetchone()
        except psycopg.Error as error:
            return error.sqlstate
    return row and row[0]


def _run(database: Database, statement: str, role: str = "ADMIN") -> Any:
    with database.tenant("acme", role=role) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


def test_the_default_is_the_same_for_both(chart: Database) -> None:
    with chart.admin() as admin:
        rows = admin.execute("select role, class, access, writes from ward.policy").fetchall()
    assert {(role, name): (access, writes) for role, name, access, writes in rows} == {
        (role, name): tuple(DEFAULT[role][name]) for role in ROLES for name in CLASSES
    }


def test_a_superuser_who_widens_his_copy_gets_no_key(chart: Database) -> None:
    with chart.admin() as admin:
        admin.execute("select ward.set_policy('ANALYST', 'note', 'clear', true)")
        admin.execute("update ward_internal.tenants set status = status")
        admin.execute("select ward.set_policy('ANALYST', 'quasi', 'clear')")
    assert _read(chart, "ANALYST", "note") == "WK232"
    assert _read(chart, "ANALYST", "born") == "1985-01-01"
    with refused("WK232"):
        _run(chart, "insert into people (id, note) values (7, 'x')", "ANALYST")
    with chart.admin() as admin:
        differing = policy.differences(admin, chart.cluster.home.keeper)
    assert [(row["class"], row["keeper"]) for row in differing] == [("quasi", "mask"), ("note", "none")]


def test_what_is_set_in_both_holds_at_the_next_transaction(chart: Database) -> None:
    keeper = chart.cluster.home.keeper
    with chart.tenant("acme", role="ANALYST") as warm, chart.admin() as admin:
        with refused("WK232"):
            warm.execute("select note from people")
        policy.set_cell(admin, keeper, "ANALYST", "note", "clear")
        assert warm.execute("select note from people").fetchone() == ("is worried",)
        policy.set_cell(admin, keeper, "ANALYST", "note", "mask")
        assert warm.execute("select note from people").fetchone() == ("[redacted]",)
        policy.set_cell(admin, keeper, "ANALYST", "note", "none")
        with refused("WK232"):
            warm.execute("select note from people")
        assert policy.differences(admin, keeper) == []


def test_neither_is_changed_where_one_cannot_be(chart: Database) -> None:
    keeper = chart.cluster.home.keeper
    with chart.admin(autocommit=False) as admin:
        with refused("WK204"):
            policy.set_cell(admin, keeper, "ANALYST", "unheard_of", "clear")
        admin.rollback()
        assert not (keeper / POLICY_FILE).exists()
        for role, name, access, write in (
            ("ANALYST", "note", "none", True),
            ("SUPER_ADMIN", "note", "clear", False),
        ):
            with pytest.raises(InvalidPolicy):
                policy.set_cell(admin, keeper, role, name, access, write)


def test_a_damaged_policy_of_the_keeper_gives_no_key(chart: Database) -> None:
    path = chart.cluster.home.keeper / POLICY_FILE
    owner = path.parent.stat()
    with chart.admin() as admin:
        policy.set_cell(admin, path.parent, "ANALYST", "note", "clear")
    path.write_text('{"policy": {"ANALYST": {"note": {"access": "everything", "write": true}}}}')
    assert path.stat().st_uid == owner.st_uid
    with chart.admin() as admin:
        admin.execute("select ward_internal.forget_keys()")
    assert _read(chart, "ADMIN", "note") == "WK103"
    path.unlink()
    assert _read(chart, "ADMIN", "note") == "is worried"


def test_a_tenants_admin_narrows_and_restores(chart: Database) -> None:
    with chart.tenant("acme", role="VIEWER") as warm:
        assert warm.execute("select name from people").fetchone() == ("Ada",)
        _run(chart, "select ward.narrow_policy('VIEWER', 'identifier', 'mask')")
        assert warm.execute("select name from people").fetchone() == ("[redacted]",)
        _run(chart, "select ward.narrow_policy('VIEWER', 'identifier', 'none')")
        with refused("WK232"):
            warm.execute("select name from people")
        query = (
            "select access, platform_access, decided_by from ward.policy"
            " where role = 'VIEWER' and class = 'identifier'"
        )
        assert warm.execute(query).fetchone() == ("none", "clear", "tester")
        assert _run(chart, "select ward.restore_policy()") == 1
        assert warm.execute("select name from people").fetchone() == ("Ada",)
    with chart.tenant("globex", role="VIEWER") as other:
        assert other.execute(f"{query}").fetchone() == ("clear", "clear", None)
    with chart.admin() as admin:
        kinds = "select kind from ward.events where slug = 'acme' and kind like 'policy%' order by at"
        assert admin.execute(kinds).fetchall() == [("policy narrowed",)] * 2 + [("policy restored",)]


@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        ("'ANALYST', 'note', 'mask'", "WK235"),
        ("'ANALYST', 'quasi', 'clear'", "WK235"),
        ("'VIEWER', 'clinical', 'clear', true", "WK235"),
        ("'VIEWER', 'clinical', 'none', true", "WK234"),
        ("'VIEWER', 'heart', 'none'", "WK204"),
        ("'SUPER_ADMIN', 'note', 'clear'", "WK204"),
        ("'VIEWER', 'note', 'all'", "WK204"),
        ("'VIEWER', 'note', null", "WK204"),
    ],
)
def test_what_may_not_be_narrowed_is_refused(chart: Database, arguments: str, sqlstate: str) -> None:
    with refused(sqlstate):
        _run(chart, f"select ward.narrow_policy({arguments})")
    assert _run(chart, "select ward.restore_policy()") == 0


def test_masks_are_neither_counted_for_payers_nor_exported(chart: Database) -> None:
    _run(chart, "select ward.narrow_policy('ADMIN', 'quasi', 'mask')")
    with refused("WK212"):
        _run(chart, "select ward.publish_measures('[2020-01-01,2020-02-01)')")
    with chart.tenant("acme") as ward, ward.transaction(), pytest.raises(NotAllowed, match="from ADMIN"):
        export._log_in(ward, lambda: chart.token("acme"), chart.tenant_id("acme"))


def test_nobody_is_locked_out_of_a_class(chart: Database) -> None:
    _run(chart, "select ward.narrow_policy('EVALUATOR', 'note', 'none')")
    with refused("WK234"):
        _run(chart, "select ward.narrow_policy('ADMIN', 'note', 'mask')")
    with chart.admin() as admin:
        admin.execute("select ward.set_policy('EVALUATOR', 'note', 'mask', false)")
        with refused("WK234"):
            admin.execute("select ward.set_policy('ADMIN', 'note', 'none')")


@pytest.mark.parametrize("role", ["EVALUATOR", "ANALYST", "VIEWER", "SUPER_ADMIN"])
def test_only_an_admin_narrows(chart: Database, role: str) -> None:
    for statement in ("select ward.narrow_policy('VIEWER', 'quasi', 'mask')", "select ward.restore_policy()"):
        with refused("WK212"):
            _run(chart, statement, role)
    with chart.tenant("acme") as nobody, refused("WK001"):
        nobody.execute("select ward.narrow_policy('VIEWER', 'quasi', 'mask')")
    with chart.tenant("acme", role=role) as connection, refused():
        connection.execute("select ward.set_policy('ANALYST', 'note', 'clear')")


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("select ward.set_policy('ANALYST', 'heart', 'clear')", "WK204"),
        ("select ward.set_policy('NURSE', 'note', 'clear')", "WK204"),
        ("select ward.set_policy('ANALYST', 'note', 'some')", "WK204"),
        ("select ward.set_policy('ANALYST', 'note', 'none', true)", "WK234"),
        ("select ward.add_class('note', 'again')", "WK209"),
        ("select ward.add_class('No name', 'x')", "WK209"),
        ("select ward.add_class('genes', ' ')", "WK212"),
        ("select ward.add_class('genes', 'x', 'blur')", "WK204"),
        ("select ward.set_mask('chart.people', 'born', 'zip3')", "WK233"),
        ("select ward.set_mask('chart.people', 'name', 'year')", "WK233"),
        ("select ward.set_mask('chart.people', 'name', 'blur')", "WK204"),
        ("select ward.set_mask('chart.people', 'id', 'null')", "WK204"),
        ("select ward.set_class_mask('heart', 'null')", "WK204"),
        ("select ward.classify('chart.people', 'name', 'heart')", "WK204"),
        ("select ward.classify('chart.people', 'id', 'note')", "WK204"),
        ("select ward.protect('chart.more', seal => '{\"a\": \"heart\"}')", "WK204"),
        ("select ward.protect('chart.more', seal => '[\"a\"]'::jsonb)", "WK204"),
    ],
)
def test_bad_input_is_one_clear_error_and_changes_nothing(
    chart: Database, statement: str, sqlstate: str
) -> None:
    query = "select count(*), sum(key_epoch) from ward_internal.tenants, ward_internal.known_classes"
    with chart.admin() as admin:
        admin.execute("create table chart.more (id integer primary key, a text)")
        before = admin.execute(query).fetchone()
        with refused(sqlstate):
            admin.execute(statement)
        assert admin.execute(query).fetchone() == before


def test_a_pooled_backend_lends_no_role_anothers_keys(chart: Database) -> None:
    with psycopg.connect(chart.dsn("tenant_acme"), autocommit=True) as pooled:
        for role, sees in (("ADMIN", True), ("VIEWER", False), ("ANALYST", False), ("EVALUATOR", True)) * 2:
            with pooled.transaction():
                pooled.execute("select ward.login(%s)", [chart.token("acme", role=role)])
                if sees:
                    assert pooled.execute("select note from people").fetchone() == ("is worried",)
                else:
                    with refused("WK232"), pooled.transaction():
                        pooled.execute("select note from people")


def _classes_of_values(admin: Connection, column: str) -> set[int]:
    (leaf,) = admin.execute(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'chart.people'::regclass"
        " and inhrelid::regclass::text like '%acme%'"
    ).fetchone()  # type: ignore[misc]
    return {number for (number,) in admin.execute(f"select get_byte({column}, 1) from {leaf}").fetchall()}


def test_a_column_gets_another_class_by_resealing(chart: Database) -> None:
    from threading import Event

    from wardkey.keys.run import Throttle, reseal

    with chart.admin() as admin:
        assert _classes_of_values(admin, "finding") == {3}
        assert admin.execute("select ward.classify('chart.people', 'finding', 'note')").fetchone() == (2,)
        assert _read(chart, "ADMIN", "finding") == "asthma"  # under the old class still
        for role in ("ANALYST", "VIEWER"):
            assert _read(chart, role, "finding") == "WK232"
        with chart.tenant("acme", role="ADMIN") as connection:
            connection.execute("insert into people (id, finding) values (2, 'new')")
        assert _classes_of_values(admin, "finding") == {3, 4}
        outcome = reseal(admin, "acme", Throttle(share=1.0), Event())
        assert (outcome.state, outcome.fields, outcome.failed) == ("finished", 1, 0)
        assert _classes_of_values(admin, "finding") == {4}
        assert _read(chart, "EVALUATOR", "finding") == "asthma"
        assert admin.execute("select count(*) from ward.rotations where finished_at is null").fetchone() == (
            1,
        )
        assert reseal(admin, "acme", Throttle(share=1.0), Event()).fields == 0
        # and back: who sees the new class alone does not see what is under the old one yet
        admin.execute("select ward.classify('chart.people', 'finding', 'clinical')")
        assert _read(chart, "ANALYST", "finding") == "WK232"
        reseal(admin, "acme", Throttle(share=1.0), Event())
        assert _read(chart, "ANALYST", "finding") == "asthma"


def test_a_role_writes_the_classes_that_it_may(chart: Database) -> None:
    with chart.admin() as admin:
        policy.set_cell(admin, chart.cluster.home.keeper, "VIEWER", "clinical", "clear", True)
        policy.set_cell(admin, chart.cluster.home.keeper, "VIEWER", "note", "mask")
    with chart.tenant("acme", role="VIEWER") as viewer:
        viewer.execute("insert into people (id, finding) values (5, 'flu')")
        viewer.execute("update people set finding = 'cold' where id = 1")
        for statement in (
            "insert into people (id, name) values (6, 'x')",
            "update people set name = 'x' where id = 1",
            "update people set name = null where id = 1",
            "update people set note = null where id = 1",
            "update people set id = 9 where id = 1",
            "delete from people where id = 1",
        ):
            with refused("WK006"):
                viewer.execute(statement)
        viewer.execute("insert into plain values (1, 'x'), (2, 'y')")
        viewer.execute("insert into of_plain values (1, 1, 'z')")
        viewer.execute("delete from plain where id = 1")  # and what references it
        assert viewer.execute("select count(*) from of_plain").fetchone() == (0,)
    with chart.tenant("acme", role="ADMIN") as admin_:
        assert admin_.execute("select name, note, finding from people where id = 1").fetchone() == (
            "Ada", "is worried", "cold"
        )  # fmt: skip


def test_a_class_of_the_dbas_is_seen_by_those_the_policy_names(chart: Database) -> None:
    keeper = chart.cluster.home.keeper
    with chart.admin() as admin:
        admin.execute("select ward.add_class('genes', 'genetic markers', 'null')")
        admin.execute("select ward.add_sealed_column('chart.people', 'marker', 'text', null, 'genes')")
        with chart.tenant("acme", role="ADMIN") as connection, refused("WK006"):
            connection.execute("insert into people (id, marker) values (3, 'BRCA1')")
        policy.set_cell(admin, keeper, "ADMIN", "genes", "clear", True)
        with chart.tenant("acme", role="ADMIN") as connection:
            connection.execute("update people set marker = 'BRCA1' where id = 1")
    assert _read(chart, "ADMIN", "marker") == "BRCA1"
    assert _read(chart, "EVALUATOR", "marker") == "WK232"
