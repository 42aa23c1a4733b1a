"""What backends read of a policy, from tables, is what people are shown of it in views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import RawCursor
from psycopg.rows import dict_row
from wardkey_core.policy import ACCESS, CLASSES, ROLES
from wardkey_pg.registry import Registry

from tests.support.database import Connection, Database

MODELS = """
select ward.add_class('genomic', 'sequences', 'null'), ward.add_class('billing', 'invoices', 'redact');
select ward.set_class_mask('quasi', 'null');
create schema chart;
create table chart.people (
  id integer primary key, name text, born date, note text, "Read" text, genome bytea);
select ward.protect('chart.people', seal => '{"name": "identifier", "born": "quasi", "note": "note",
  "Read": "billing", "genome": "genomic"}');
create table chart.plain (id integer primary key, finding text);
select ward.protect('chart.plain', seal => '{finding}');
select ward.set_audit('chart.plain', 'off', 'a test');
"""
_NAMES = (*CLASSES, "genomic", "billing", "of_no_row")
_CELLS = st.dictionaries(
    st.tuples(st.sampled_from(ROLES), st.sampled_from(_NAMES)),
    st.sampled_from([(access, writes) for access in ACCESS for writes in (False, True) if access != "none"])
    | st.just(("none", False)),
    max_size=12,
)
_SET = "insert into ward_internal.policy (role, class, access, writes) values (%s, %s, %s, %s)"
_NARROW = """
insert into ward_internal.tenant_policy (tenant_id, role, class, access, writes, decided_by)
values (%s, %s, %s, %s, %s, 'test')"""
_COLUMNS = """
select uuid_send(c.id), uuid_send(m.id), quote_ident(c.name), m.audit, m.row_form, c.number, c.mask, c.kind
from ward_internal.column_classes as c join ward_internal.models as m on m.id = c.model_id"""
_SHOWN = """
select c.number, c.name, array_position('{none,mask,clear}', a.access) - 1, a.writes
from ward_internal.tenant_access as a join ward_internal.known_classes as c on c.name = a.class
where a.tenant_id = %s and a.role = %s"""


class _Admin:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def query_now(
        self, sql: str, types: Sequence[str] = (), args: Sequence[Any] = ()
    ) -> list[Mapping[str, Any]]:
        with RawCursor(self._connection, row_factory=dict_row) as cursor:
            rows = cursor.execute(sql, args).fetchall()
        # as PL/Python has them
        return [
            {key: str(value) if key.endswith("id") else value for key, value in row.items()} for row in rows
        ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(platform=_CELLS, narrowed=_CELLS, elsewhere=_CELLS)
def test_backends_and_views_see_the_same(
    shared: Database, platform: Any, narrowed: Any, elsewhere: Any
) -> None:
    tenants = shared.tenant_id("acme"), shared.tenant_id("globex")
    with shared.admin(autocommit=False) as admin:
        for (role, name), cell in platform.items():
            admin.execute(_SET, [role, name, *cell])
        for tenant, cells in zip(tenants, (narrowed, elsewhere), strict=True):
            for (role, name), cell in cells.items():
                admin.execute(_NARROW, [tenant, role, name, *cell])
        registry = Registry(_Admin(admin))
        numbers = registry.numbers()
        for tenant in tenants:
            for role in (*ROLES, "SUPER_ADMIN"):
                shown = set(admin.execute(_SHOWN, [tenant, role]).fetchall())
                assert {
                    tuple(each) for each in registry.classes(str(tenant), role, numbers).values()
                } == shown
                assert len(shown) == (0 if role == "SUPER_ADMIN" else len(CLASSES) + 2)
        admin.rollback()


def test_columns_have_the_class_and_mask_that_are_shown(shared: Database) -> None:
    with shared.admin(autocommit=False) as admin:
        # of a class that nobody knows: it has no key
        admin.execute("update ward_internal.sealed_columns set class = 'gone' where name = 'note'")
        registry = Registry(_Admin(admin))
        columns, quiet = registry.columns(registry.numbers())
        rows = admin.execute(_COLUMNS).fetchall()
        assert {(identity, *column) for identity, column in columns.items()} == {row[:6] for row in rows}
        assert registry.masks() == {row[0]: row[6:] for row in rows}
        assert {row[1] for row in rows if row[3] == "off"} == quiet != set()
        assert '"Read"' in {row[2] for row in rows} and "note" not in {row[2] for row in rows}
        admin.rollback()
