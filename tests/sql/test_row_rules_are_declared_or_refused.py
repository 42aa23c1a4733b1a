"""A row rule is a condition on one row; it stands in every ward and follows its table."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Connection, Database
from tests.support.sqlstate import refused

MODELS = """
create type clinic.kind as enum ('in', 'out');
create table clinic.stays (
  id uuid primary key default gen_random_uuid(),
  patient_id bigint not null,
  team text,
  site varchar(20),
  kind clinic.kind,
  day date,
  cost numeric,
  note text
);
select ward.protect('clinic.stays', seal => '{note}');
create function clinic.mine(text) returns boolean language sql immutable as 'select true';
"""
ADD = "select ward.add_row_rule('clinic.stays', %s, %s, %s)"
POLICIES = """
select count(*) from pg_policy where polname = 'ward_rule_' || %s and not polpermissive
  and polrelid in (select ward_internal.relations_of(array['clinic.stays'::regclass]))"""


@pytest.mark.parametrize(
    "expression",
    [
        "patient_id = ward.claim('patient_id')::bigint",
        "team = ward.claim('team') or team is null",
        "site = ward.claim('https://example.com/site')",
        "team = any (ward.claim('teams')::text[])",
        "patient_id = any (ward.claim('patients')::bigint[])",
        "day >= current_date - 30 and team = ward.claim('team')",
        "day between ward.claim('from')::date and now()::date",
        "kind = ward.claim('kind')::clinic.kind",
        "id::uuid = ward.claim('stay')::uuid",
        "coalesce(team, 'none') = ward.claim('team') and kind in ('in', 'out')",
        "case when kind = 'in' then team = ward.claim('team') else true end",
        "team is distinct from ward.claim('team') and not (day < '2020-01-01')",
        "'admin' = ward.claim('level')",
        "cost <= ward.claim('most')::numeric",
        "true",
    ],
)
def test_conditions_on_columns_and_claims_are_taken(shared: Database, expression: str) -> None:
    with shared.admin(autocommit=False) as admin:
        ((name,),) = admin.execute(ADD, [["VIEWER"], expression, None]).fetchall()
        assert name == "rule_1"
        assert admin.execute(POLICIES, [name]).fetchone() == (3,)  # the table, two leaves
        ((told,),) = admin.execute("select expression from ward.row_rules").fetchall()
        assert "rule_claim" not in told
        token = shared.token("acme", role="VIEWER", team="a", kind="in", stay=str(shared.tenant_id("acme")))
        admin.execute("set session authorization tenant_acme")
        admin.execute("select ward.login(%s)", [token])
        assert admin.execute("select count(*) from tenant_acme.stays").fetchone() == (0,)
        admin.rollback()


REFUSED = {
    "note = ward.claim('note')": "WK258",
    "note is null": "WK258",
    "clinic__stays is not null": "WK258",
    "clinic__stays.* is null": "WK258",
    "tableoid > 0": "WK258",
    "random() < 0.5": "WK259",
    "clinic.mine(team)": "WK259",
    "ward.role() = 'ADMIN'": "WK259",
    "ward.subject() = team": "WK259",
    "team = current_setting('my.team')": "WK259",
    "lower(team) = ward.claim('team')": "WK259",
    "team = upper(ward.claim('team'))": "WK259",
    "team like ward.claim('team')": "WK259",
    "team::bigint = 1": "WK259",
    "patient_id / 0 = 1": "WK259",
    "patient_id::text = ward.claim('patient_id')": "WK259",
    "site = ward.claim('site')::varchar(3)": "WK259",
    "greatest(team, 'x') = 'x'": "WK259",
    "(team, site) < ('x', 'y')": "WK259",
    "row(team)::text = 'x'": "WK259",
    "team = ward.claim('te' || 'am')": "WK260",
    "team = ward.claim(site)": "WK260",
    "team = ward.claim('te''am')": "WK260",
    "team = (select ward.claim('team'))": "WK260",
    "exists (select from clinic.icd10)": "WK260",
    "patient_id": "WK260",
    "patient_id = 1; drop table clinic.icd10": "WK260",
    "true) with check (true": "WK260",
    "true) to public using (true": "WK260",
    "true -- ": None,
    "count(*) > 1": "WK260",
    "nowhere = 1": "WK260",
    "tenant_id is not null": "WK260",
    "patient_id = nothing()": "WK260",
    "generate_series(1, 2) = 1": "WK260",
    "": "WK260",
}


@pytest.mark.parametrize("expression", REFUSED)
def test_what_is_no_such_condition_is_refused(shared: Database, expression: str) -> None:
    with shared.admin(autocommit=False) as admin:
        if REFUSED[expression] is None:
            admin.execute(ADD, [["VIEWER"], expression, None])
        else:
            with pytest.raises(psycopg.Error) as error:
                admin.execute(ADD, [["VIEWER"], expression, None])
            assert error.value.sqlstate == REFUSED[expression], error.value
            assert error.value.diag.message_hint
        admin.rollback()
        assert admin.execute("select count(*) from ward.row_rules").fetchone() == (0,)


def test_roles_names_and_tables_are_looked_at(shared: Database) -> None:
    with shared.admin(autocommit=False) as admin:
        for roles in ([], None, [None], ["NURSE"], ["VIEWER", None], ["viewer"]):
            with admin.transaction(force_rollback=True), refused("WK261"):
                admin.execute(ADD, [roles, "true", None])
        for name in ("", "Portal", "1st", "x" * 49, "a b"):
            with admin.transaction(force_rollback=True), refused("WK260"):
                admin.execute(ADD, [["VIEWER"], "true", name])
        admin.execute(ADD, [["VIEWER", "ADMIN", "VIEWER"], "true", "x" * 48])
        assert admin.execute("select roles from ward.row_rules").fetchone() == (["ADMIN", "VIEWER"],)
        with admin.transaction(force_rollback=True), refused("WK260"):
            admin.execute(ADD, [["VIEWER"], "true", "x" * 48])
        for table in ("clinic.icd10", "ward_model.clinic__stays", "tenant_acme.stays"):
            with admin.transaction(force_rollback=True), refused("WK204"):
                admin.execute("select ward.add_row_rule(%s, '{ADMIN}', 'true')", [table])
        with admin.transaction(force_rollback=True), refused("WK204"):
            admin.execute("select ward.drop_row_rule('clinic.stays', 'none')")
        admin.rollback()


@pytest.fixture
def own(database: Database) -> Iterator[Connection]:
    """A superuser's connection to a database of this test's own, with a rule in it."""
    with database.admin() as connection:
        connection.execute(MODELS)
        connection.execute(ADD, [["VIEWER"], "patient_id = ward.claim('patient_id')::bigint", "portal"])
        yield connection


def test_a_rule_stands_in_wards_that_are_made_later(database: Database, own: Connection) -> None:
    slug = database.new_tenant()
    assert own.execute(POLICIES, ["portal"]).fetchone() == (4,)
    with database.tenant(slug, subject="doctor") as staff:
        staff.execute("insert into stays (patient_id, note) values (1, 'a'), (2, 'b')")
    with database.tenant(slug, role="VIEWER", patient_id="2") as patient:
        assert patient.execute("select note from stays").fetchall() == [("b",)]
    own.execute("select ward.drop_row_rule('clinic.stays', 'portal')")
    assert own.execute(POLICIES, ["portal"]).fetchone() == (0,)
    with database.tenant(slug, role="VIEWER", patient_id="2") as patient:
        assert len(patient.execute("select note from stays").fetchall()) == 2


def test_a_rule_follows_the_names_of_columns_and_types(database: Database, own: Connection) -> None:
    own.execute(ADD, [["VIEWER"], "kind = ward.claim('kind')::clinic.kind", "kind"])
    own.execute("alter table clinic.stays rename column patient_id to person")
    own.execute("alter type clinic.kind rename to sort")
    told = own.execute("select name, expression from ward.row_rules order by name").fetchall()
    assert told == [
        ("kind", "(kind = (ward.claim('kind'::text))::clinic.sort)"),
        ("portal", "(person = (ward.claim('patient_id'::text))::bigint)"),
    ]
    slug = database.new_tenant()
    for ward in ("acme", slug):
        with database.tenant(ward, subject="doctor") as staff:
            staff.execute("insert into stays (person, kind) values (1, 'in'), (2, 'in'), (2, 'out')")
        with database.tenant(ward, role="VIEWER", patient_id="2", kind="out") as patient:
            assert patient.execute("select person, kind from stays").fetchall() == [(2, "out")]


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("alter table clinic.stays drop column patient_id", "2BP01"),
        ("alter table clinic.stays drop column patient_id cascade", "WK218"),
        ("alter table clinic.stays alter column patient_id type text", "0A000"),
        ("drop policy ward_rule_portal on clinic.stays", "WK218"),
        ("drop policy ward_rule_portal on ward_model.clinic__stays", "WK218"),
        ("create policy ward_rule_other on clinic.stays using (true)", "WK218"),
        ("drop extension wardkey", "2BP01"),
    ],
)
def test_what_a_rule_needs_is_not_taken_away(shared_rule: Connection, statement: str, sqlstate: str) -> None:
    with pytest.raises(psycopg.Error) as error:
        shared_rule.execute(statement)
    assert error.value.sqlstate == sqlstate
    if sqlstate in ("2BP01", "0A000", "WK218") and "extension" not in statement:
        diagnostics = error.value.diag
        told = f"{diagnostics.message_primary} {diagnostics.message_detail} {diagnostics.message_hint}"
        assert "ward_rule_portal" in told or "row rule portal" in told or "ward_rule_other" in told


@pytest.fixture
def shared_rule(shared: Database) -> Iterator[Connection]:
    """A superuser's transaction with a rule in it, rolled back after the test."""
    with shared.admin(autocommit=False) as connection:
        connection.execute(ADD, [["VIEWER"], "patient_id = ward.claim('patient_id')::bigint", "portal"])
        yield connection
        connection.rollback()


def test_a_rule_goes_with_its_table(database: Database, own: Connection) -> None:
    own.execute("select ward.unprotect('clinic.stays')")
    assert own.execute("select count(*) from pg_policy where polname ~ 'rule'").fetchone() == (0,)
    assert own.execute("select count(*) from ward_internal.row_rules").fetchone() == (0,)
    own.execute("select ward.protect('clinic.stays', seal => '{note}')")
    own.execute(ADD, [["VIEWER"], "patient_id = 1", "portal"])
    own.execute("drop table clinic.stays cascade")
    assert own.execute("select count(*) from ward_internal.row_rules").fetchone() == (0,)


def test_repair_puts_rules_right(database: Database, own: Connection) -> None:
    ((leaf,),) = own.execute(
        "select ward_internal.leaf_name(id, 'tenant_acme') from ward.models where face = 'stays'"
    ).fetchall()
    query = f"select pg_get_expr(polqual, polrelid) from pg_policy where polrelid = '{leaf}'::regclass"
    before = own.execute(f"{query} order by polname").fetchall()
    own.execute(f"alter policy ward_rule_portal on {leaf} using (true)")
    own.execute("select ward.repair_tenant('acme')")
    assert own.execute(f"{query} order by polname").fetchall() == before


def test_only_superusers_make_rules(shared: Database) -> None:
    with shared.tenant("acme", subject="x") as tenant:
        for statement in ("ward.add_row_rule('x', '{VIEWER}', 'true')", "ward.drop_row_rule('x', 'y')"):
            with refused("42501", "42P01"):
                tenant.execute(f"select {statement}")
