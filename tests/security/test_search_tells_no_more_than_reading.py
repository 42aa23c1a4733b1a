"""Who searches learns what reading would tell, is noted and counted as a reader, and sees no token."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
import pytest

from tests.support.database import Connection, Database, clone
from tests.support.journals import by_row, journal_of
from tests.support.sqlstate import refused
from wardkey.access import budgets
from wardkey.embedded import Cluster
from wardkey.keeper.budgets import BUDGETS_FILE

_FIND = "select find_patients({})"


@pytest.fixture(scope="module")
def searched(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        with database.admin() as admin:
            admin.execute("select ward.classify('clinic.patients', 'name', 'identifier')")
            admin.execute("select ward.classify('clinic.patients', 'birth_date', 'quasi')")
            admin.execute("select ward.add_search('clinic.patients', 'name', '{exact, words}')")
            admin.execute("select ward.add_search('clinic.patients', 'birth_date', '{range}')")
        for slug in ("acme", "globex"):
            with database.tenant(slug, role="ADMIN") as ward:
                ward.execute(
                    "insert into patients (id, name, birth_date, city) select n, 'Needle ' || n % 30,"
                    " date '2000-01-01' + n, 'City ' || n % 2 from generate_series(1, 90) as n"
                )
        yield database
    (cluster.home.keeper / BUDGETS_FILE).unlink(missing_ok=True)


def _ids(ward: Connection, arguments: str) -> list[int]:
    return sorted(row[0] for row in ward.execute(_FIND.format(arguments)).fetchall())


def test_a_search_is_an_event_with_columns_and_never_what_was_looked_for(searched: Database) -> None:
    with searched.tenant("acme", subject="reader") as ward, journal_of(searched) as journal:
        assert _ids(ward, "name => 'needle 7'") == [7, 37, 67]
        assert _ids(ward, "name => 'no such needle'") == []
        messages = journal.read(
            lambda all_: sum(getattr(one, "operation", "") == "search" for one in all_) >= 2
        )
    events = [one for one in messages if getattr(one, "operation", "") == "search"]
    assert [one.detail for one in events] == [{"table": "patients", "columns": ["name"]}] * 2
    assert by_row(messages) == {row: {"name"} for row in ("7", "37", "67")}
    assert "needle" not in repr(messages).lower()


def test_no_tenant_reads_a_token_or_calls_what_makes_one(searched: Database) -> None:
    with searched.admin() as admin:
        columns = admin.execute("select stored from ward_internal.searches").fetchall()
        oids = admin.execute("select oid::text from pg_class where relname ~ '^ward_search_'").fetchall()
    assert len(columns) == 3 and len(oids) == 9
    with searched.tenant("acme", subject="thief") as ward:
        attempts = [
            f"select {column} from {table}"
            for (column,) in columns
            for table in ("sealed_acme.patients", "sealed_globex.patients", "clinic.patients")
        ]
        attempts += [
            "select ward_internal.make_tokens(array['\\x00'::bytea], '[]')",
            "select ward_internal.find_query('{}', '{}', '{}')",
            "select ward_internal.is_found('a', 'exact/1', 'text/1', 'a')",
            "select array[1::bigint] operator(ward_internal.@>) array[1::bigint]",
            "select * from ward.searches",
            "select most_common_elems from pg_stats",
            "select tenant_globex.find_patients(name => 'needle 7')",
            "select tenant_globex.patients_find_globex('needle 7')",
        ]
        for attempt in attempts:
            with refused("42501"):
                ward.execute(attempt)


@pytest.mark.parametrize("query", [_FIND, "select * from patients where id in (select find_patients({}))"])
def test_explain_shows_no_token(searched: Database, query: str) -> None:
    with searched.tenant("acme", subject="thief") as ward:
        plan = "\n".join(
            line
            for (line,) in ward.execute(
                "explain (analyze, verbose, timing off) " + query.format("name => 'needle 7'")
            ).fetchall()
        )
    assert "needle 7" in plan and not re.search(r"\b\d{12,}\b", plan)  # a column's name is no token


@pytest.mark.parametrize("role", ["ANALYST", "SUPER_ADMIN"])
def test_a_role_that_a_superuser_widens_gets_no_search_key(searched: Database, role: str) -> None:
    with searched.admin() as admin:
        admin.execute(
            "insert into ward_internal.policy values ('ANALYST', 'identifier', 'clear', false),"
            " ('ANALYST', 'quasi', 'clear', false)"
        )
        admin.execute("update ward_internal.tenants set key_epoch = key_epoch + 1")
        try:
            with searched.tenant("acme", subject="analyst", role=role) as ward:
                for arguments in ("name => 'needle 7'", "birth_date_between => '[2000-01-01,2000-02-01]'"):
                    with refused("WK232"):
                        ward.execute(_FIND.format(arguments))
        finally:
            admin.execute("delete from ward_internal.policy")
            admin.execute("update ward_internal.tenants set key_epoch = key_epoch + 1")


def test_budgets_count_what_a_search_opens(searched: Database) -> None:
    with searched.admin() as admin:
        budgets.set_(admin, searched.cluster.home.keeper, "acme", "VIEWER", "clinic.patients", 10)
    with searched.tenant("acme", subject="counted", role="VIEWER") as ward:
        assert _ids(ward, "name => 'needle 7'") == [7, 37, 67]
        assert _ids(ward, "name => 'no such needle'") == []
        with pytest.raises(psycopg.Error) as error:
            for number in range(8, 20):
                _ids(ward, f"name => 'needle {number}'")
        assert error.value.sqlstate == "WK253" and number == 10, number
        text = f"{error.value} {error.value.diag.context}"
        assert "needle" not in text and not re.search(r"-?\d{12,}", text)


def test_a_search_stands_under_the_row_rules(searched: Database) -> None:
    with searched.admin() as admin:
        admin.execute(
            "select ward.add_row_rule('clinic.patients', '{EVALUATOR}', $$city = ward.claim('city')$$, 'own')"
        )
        try:
            claims = {"subject": "portal", "role": "EVALUATOR", "city": "City 1"}
            with searched.tenant("acme", **claims) as ward, journal_of(searched) as journal:
                assert _ids(ward, "name_words => 'needle 7'") == [7, 37, 67]
                assert _ids(ward, "name_words => 'needle 8'") == []
                assert journal.reads(3).keys() == {"7", "37", "67"}, "it opens no other's rows"
        finally:
            admin.execute("select ward.drop_row_rule('clinic.patients', 'own')")


def test_without_a_context_nothing_is_found(searched: Database) -> None:
    with searched.tenant("acme") as ward, refused("WK001"):
        ward.execute(_FIND.format("name => 'needle 7'"))
