"""ATTACKS 25, 26: counts and estimates of a plan are of one's own leaf, because no plan touches another."""

from __future__ import annotations

import json

import pytest

from tests.support.sqlstate import refused

from .conftest import SECRET, Wards

QUERIES = (
    "select * from patients",
    "select * from patients where city = 'Shelbyville'",
    "select * from patients where ssn = '999-77-4321'",
    "select count(*) from patients a join patients b using (id)",
    "update patients set city = 'x' where id = 2",
    "delete from patients where id = 2",
    "select ward.tenant_id()",
)


def _numbers(node: object) -> list[tuple[str, object]]:
    """Return all that a plan says of rows and blocks."""
    if isinstance(node, list):
        return [number for part in node for number in _numbers(part)]
    if not isinstance(node, dict):
        return []
    own = [(k, v) for k, v in node.items() if "Rows" in k or "Blocks" in k or k == "Relation Name"]
    return own + [number for part in node.values() for number in _numbers(part)]


@pytest.mark.parametrize("query", QUERIES)
def test_plan_is_the_same_whatever_the_victim_has(wards: Wards, query: str) -> None:
    plans = []
    for rows in (0, 300):
        with wards.victim() as victim:
            victim.execute(
                "insert into patients (id, name, city)"
                " select n, 'x', 'Shelbyville' from generate_series(10, 9 + %s::int) n",
                [rows],
            )
        wards.admin.execute("analyze sealed_globex.patients")
        with wards.attacker() as connection:
            connection.execute(query if "ward." in query else "select 1")
            connection.execute("begin")
            options = "analyze, buffers off, timing off, summary off, verbose, format json"
            (plan,) = connection.execute(f"explain ({options}) {query}").fetchone()
            connection.execute("rollback")
        assert "globex" not in json.dumps(plan)
        plans.append(_numbers(plan))
    assert plans[0] == plans[1]


def test_without_a_token_no_row_is_even_counted_as_filtered(calm: Wards) -> None:
    """The fence comes first in each plan: no condition of the query sees a row, no error tells of one."""
    with calm.attacker(None) as connection:
        for query in (
            "select * from patients where city = 'Springfield'",
            "select * from patients where 1 / (id - 1) = 0",
            "select * from patients where name::integer = 1",
        ):
            for statement in (f"explain (analyze, timing off, format json) {query}", query):
                with refused("WK001"):
                    connection.execute(statement)
    calm.admin.execute("select ward.set('no_context', 'empty')")
    try:
        with calm.attacker(None) as connection:
            plan = repr(connection.execute(f"explain (analyze, timing off, format json) {query}").fetchall())
            assert "'Rows Removed by Filter': 0" in plan or "Rows Removed by Filter" not in plan
    finally:
        calm.admin.execute("select ward.set('no_context', 'error')")


def test_victims_face_cannot_be_explained(calm: Wards) -> None:
    for name in ("tenant_globex.patients", "sealed_globex.patients", "clinic.patients"):
        calm.refuses(f"explain select * from {name}")


def test_the_attack_works_on_one_table_for_all(wards: Wards) -> None:
    """Rows Removed by Filter answers a question about rows that the policy hides."""
    wards.admin.execute(
        f"""
        create table public.people (tenant text, ssn text);
        insert into public.people values ('globex', '{SECRET}'), ('globex', '999-00-0000'), ('acme', 'x');
        alter table public.people enable row level security, force row level security;
        create policy own on public.people using (tenant = current_setting('app.tenant', true));
        create index on public.people (ssn);
        grant select on public.people to ward_tenant
        """
    )
    with wards.attacker() as connection:
        connection.execute("set app.tenant = 'acme'; set enable_seqscan = off")

        def removed(guess: str) -> bool:
            plan = connection.execute(
                f"explain (analyze, timing off) select * from public.people where ssn = '{guess}'"
            ).fetchall()
            return "Rows Removed by Filter: 1" in repr(plan)

        assert removed(SECRET)
        assert not removed("999-12-3456")
