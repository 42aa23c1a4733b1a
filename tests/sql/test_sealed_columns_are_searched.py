"""Rows are found by what is sealed in them: those that match, no others, by an index, for who sees it."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.database import Connection, Database
from tests.support.rotations import reseal, retire
from wardkey.doctor import Server, checks

MODELS = """
select ward.classify('clinic.patients', 'name', 'identifier');
select ward.classify('clinic.patients', 'birth_date', 'quasi');
select ward.add_search('clinic.patients', 'name', '{exact, prefix, words, substring, phonetic}');
select ward.add_search('clinic.patients', 'ssn', '{exact}', 'digits');
select ward.add_search('clinic.patients', 'birth_date', '{exact, range}');
"""
_PEOPLE = [
    ("Ada Lovelace", "999-11-0001", "1815-12-10"),
    ("Álvaro O'Brien", "999-11-0002", "1980-02-29"),
    ("Smith, John", "999-11-0003", "1999-12-31"),
    ("smyth john", None, "2000-01-01"),
    ("Straße Müller-Meier", "999-11-0005", None),
    ("X", "999-11-0006", "2024-01-01"),
]


@pytest.fixture
def people(acme: Connection) -> Connection:
    acme.cursor().executemany("insert into patients (name, ssn, birth_date) values (%s, %s, %s)", _PEOPLE)
    return acme


def _names(ward: Connection, arguments: str, *values: object) -> list[str]:
    query = f"select name from patients where id in (select find_patients({arguments})) order by name"
    return [name for (name,) in ward.execute(query, values).fetchall()]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ("name => 'ada lovelace'", ["Ada Lovelace"]),
        ("name => 'alvaro obrien'", ["Álvaro O'Brien"]),
        ("name => 'Ada'", []),
        ("name_starts => 'SMI'", ["Smith, John"]),
        ("name_starts => 'straße müller-m'", ["Straße Müller-Meier"]),
        ("name_words => 'john SMITH'", ["Smith, John"]),
        ("name_words => 'john'", ["Smith, John", "smyth john"]),
        ("name_contains => 'ovel'", ["Ada Lovelace"]),
        ("name_sounds => 'Smith'", ["Smith, John", "smyth john"]),
        ("ssn => '999110003'", ["Smith, John"]),
        ("birth_date => '1980-02-29'", ["Álvaro O'Brien"]),
        ("birth_date_between => '[1999-12-31,2000-01-01]'", ["Smith, John", "smyth john"]),
        ("birth_date_between => '[1999-12-31,2000-01-01)'", ["Smith, John"]),
        ("birth_date_between => '[,1900-01-01]'", ["Ada Lovelace"]),
        ("birth_date_between => '[2000-01-01,)'", ["X", "smyth john"]),
        ("name_sounds => 'Smith', birth_date_between => '[2000-01-01,)'", ["smyth john"]),
        ("name => 'X', ssn => '999-11-0006'", ["X"]),
    ],
)
def test_what_matches_is_found_and_nothing_else(people: Connection, arguments: str, names: list[str]) -> None:
    assert _names(people, arguments) == names


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "name => null",
        "name => ''",
        "name => ' - '",
        "name_starts => 'a'",
        "name_contains => 'ab'",
        "name_words => '!'",
        "name_sounds => '12'",
        "ssn => 'none'",
        "birth_date_between => 'empty'",
        "birth_date_between => '(,)'",
    ],
)
def test_a_needle_that_says_nothing_is_an_error_and_never_all_rows(
    people: Connection, arguments: str
) -> None:
    with pytest.raises(psycopg.errors.DatabaseError) as error:
        _names(people, arguments)
    assert error.value.sqlstate == "WK273"


def test_tokens_follow_updates_and_leave_with_values(people: Connection) -> None:
    people.execute("update patients set name = 'Grace Hopper' where ssn = '999-11-0006'")
    assert _names(people, "name => 'x'") == []
    assert _names(people, "name_words => 'hopper'") == ["Grace Hopper"]
    people.execute("update patients set city = 'Boston' where name = 'Grace Hopper'")
    assert _names(people, "name_words => 'hopper', ssn => '999110006'") == ["Grace Hopper"]
    people.execute("update patients set ssn = null, birth_date = null where name = 'Grace Hopper'")
    assert _names(people, "ssn => '999110006'") == _names(people, "birth_date => '2024-01-01'") == []
    with people.cursor().copy("copy patients (name) from stdin") as copy:
        copy.write_row(["Copied One"])
    people.execute("""select ward.upsert('patients', '[{"id": 900, "name": "Upserted Two"}]')""")
    assert _names(people, "name_words => 'one'") == ["Copied One"]
    assert _names(people, "name_starts => 'upser'") == ["Upserted Two"]
    people.execute("delete from patients where id = 900")
    assert _names(people, "name_starts => 'upser'") == []


def test_the_key_of_a_row_may_change(people: Connection) -> None:
    people.execute("update patients set id = 77 where name = 'X'")
    assert people.execute("select find_patients(name => 'x')").fetchall() == [(77,)]


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
def test_an_index_is_used_with_and_without_statistics(database: Database, analysed: bool, mode: str) -> None:
    """What runs inside the function is told by auto_explain; outside, the leaf is looked up by its key."""
    with database.admin() as admin:
        admin.execute(MODELS)
    with database.tenant("acme", subject="tester") as ward:
        ward.execute(
            "insert into patients (name, birth_date) select 'Name ' || n, date '2000-01-01' + n % 90"
            " from generate_series(1, 300) as n"
        )
    with database.admin(autocommit=False) as admin:
        if analysed:
            admin.execute("analyze sealed_acme.patients")
        admin.execute("load 'auto_explain'")
        admin.execute("set local auto_explain.log_min_duration = 0")
        admin.execute("set local auto_explain.log_nested_statements = on")
        admin.execute("set local auto_explain.log_level = notice")
        admin.execute("set local client_min_messages = notice")
        admin.execute(f"set local plan_cache_mode = {mode}")
        admin.execute("set local session authorization tenant_acme")
        admin.execute("select ward.login(%s)", [database.token("acme")])
        plans: list[str] = []
        admin.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
        admin.execute("set local search_path = tenant_acme, ward, pg_catalog")
        admin.execute(
            "prepare q (text, daterange) as select name from patients where id in ("
            "select find_patients(name_words => $1, birth_date_between => $2))"
        )
        rows = admin.execute("execute q ('17', '[2000-01-01,2000-01-31]')").fetchall()
        admin.execute("reset session authorization")
    assert rows == [("Name 17",)]
    searched = [plan for plan in plans if "ward_search_" in plan]
    assert searched and all("Seq Scan" not in plan for plan in searched), plans
    assert "Bitmap Index Scan" in searched[0]
    outer = [plan for plan in plans if "find_patients" in plan and "ward_search_" not in plan]
    assert outer and all("Seq Scan" not in plan for plan in outer), outer


def test_who_sees_a_mask_or_nothing_does_not_search(shared: Database) -> None:
    with shared.tenant("acme", subject="a", role="ANALYST") as ward:
        for arguments in ("name => 'Ada Lovelace'", "birth_date_between => '[1980-01-01,)'"):
            with pytest.raises(psycopg.errors.DatabaseError) as error:
                ward.execute(f"select find_patients({arguments})")
            assert error.value.sqlstate == "WK232", arguments


def test_rows_from_before_a_search_are_found_when_it_is_built(
    database: Database, postgresql: Connection
) -> None:
    with database.tenant("acme", subject="tester") as ward:
        ward.cursor().executemany("insert into patients (name, ssn, birth_date) values (%s, %s, %s)", _PEOPLE)
        add = "select ward.add_search('clinic.patients', %s, %s)"
        assert postgresql.execute(add, ["name", ["exact", "words"]]).fetchone() == (1,)
        assert postgresql.execute(add, ["birth_date", ["range"]]).fetchone() == (1,)
        with pytest.raises(psycopg.errors.DatabaseError) as error:
            ward.execute("select find_patients(name => 'x')")
        assert error.value.sqlstate == "WK272"
        with pytest.raises(psycopg.errors.DatabaseError) as error:
            postgresql.execute("select ward.retire_keys('acme')")
        assert error.value.sqlstate == "WK214"
        ward.execute("insert into patients (name) values ('New John')")
        assert reseal(postgresql) == (6, 11, 0, 0)
        assert reseal(postgresql) == (0, 0, 0, 0)
        retire(postgresql)
        assert postgresql.execute("select distinct pending from ward.searches").fetchall() == [([],)]
        assert _names(ward, "name_words => 'john'") == ["New John", "Smith, John", "smyth john"]
        assert _names(ward, "birth_date_between => '[1800-01-01,1900-01-01]'") == ["Ada Lovelace"]


def test_tokens_follow_rotation_and_class(database: Database, postgresql: Connection) -> None:
    postgresql.execute(MODELS)
    reseal(postgresql)
    retire(postgresql)
    with database.tenant("acme", subject="tester") as ward:
        ward.cursor().executemany("insert into patients (name, ssn, birth_date) values (%s, %s, %s)", _PEOPLE)
        stored = _tokens(postgresql)
        for change in (
            "select ward.rotate_key('acme', 'a test')",
            "select ward.classify('clinic.patients', 'name', 'note')",
        ):
            postgresql.execute(change)
            ward.execute("update patients set name = 'new ' || name where name = 'X'")
            ward.execute("update patients set name = 'X' where name = 'new X'")
            for _ in range(2):  # some rows are under either, then all under the new one
                assert _names(ward, "name_words => 'john'") == ["Smith, John", "smyth john"]
                assert _names(ward, "name => 'x'") == ["X"]
                assert _names(
                    ward, "birth_date_between => '[1999-12-31,2000-01-01]', name_sounds => 'smith'"
                ) == [
                    "Smith, John",
                    "smyth john",
                ]
                reseal(postgresql)
            retire(postgresql)
            assert _names(ward, "name_words => 'john'") == ["Smith, John", "smyth john"]
            former, stored = stored, _tokens(postgresql)
            assert former.isdisjoint(stored), "all tokens are new"


def _tokens(admin: Connection) -> set[int]:
    """Return all tokens of names that are stored."""
    columns = admin.execute(
        "select kind, stored from ward_internal.searches as s"
        " join ward_internal.sealed_columns as c on c.id = column_id where c.name = 'name'"
    ).fetchall()
    one = [f"array[{stored}]" if kind == "exact" else stored for kind, stored in columns]
    rows = admin.execute(f"select unnest({' || '.join(one)}) from sealed_acme.patients").fetchall()
    assert len(rows) > 50
    return {token for (token,) in rows}


def test_searches_follow_their_table(database: Database, postgresql: Connection) -> None:
    """A column that is renamed, added or dropped; a new tenant; the table given back."""
    run = postgresql.execute
    run("""create table clinic.visits (
             day text, number int, reason text, note text, primary key (day, number))""")
    run(
        "select ward.protect('clinic.visits', '{reason, note}', search => %s)",
        ['{"reason": ["words"], "note": ["exact"]}'],
    )
    run("alter table clinic.visits rename column reason to cause")
    run("alter table clinic.visits add column ward text default 'A'")
    run("create index visits_ward on clinic.visits (ward)")
    slug = database.new_tenant()
    for tenant in ("acme", slug):
        with database.tenant(tenant, subject="tester") as ward:
            ward.execute(
                "insert into visits values ('2026-01-01', 1, 'acute cough', 'n1'),"
                " ('2026-01-02', 1, 'cough', 'n2')"
            )
            query = "select day, number from find_visits(cause_words => 'cough', note => 'n2')"
            assert ward.execute(query).fetchall() == [("2026-01-02", 1)]
    run("alter table clinic.visits drop column note cascade")
    assert run("select column_name, kind from ward.searches").fetchall() == [("cause", "words")]
    assert run(
        "select count(*) from pg_attribute where attrelid = 'clinic.visits'::regclass"
        " and attname ~ '^ward_search' and not attisdropped"
    ).fetchone() == (1,)
    with database.tenant("acme", subject="tester") as ward:
        assert len(ward.execute("select * from find_visits(cause_words => 'cough')").fetchall()) == 2
        ward.execute("delete from visits")
    with database.tenant(slug, subject="tester") as ward:
        ward.execute("delete from visits")
    run("select ward.unprotect('clinic.visits')")
    assert run("select count(*) from pg_proc where proname ~ 'find_visits|visits_find'").fetchone() == (0,)
    assert run(
        "select (select count(*) from ward_internal.searches), to_regclass('clinic.visits') is not null"
    ).fetchone() == (0, True)
    assert "ward_search" not in str(run("select * from clinic.visits").description)


def test_a_search_is_dropped_with_its_tokens(database: Database, postgresql: Connection) -> None:
    postgresql.execute("select ward.add_search('clinic.patients', 'name', '{exact, prefix}')")
    postgresql.execute("select ward.drop_search('clinic.patients', 'name', '{exact}')")
    with database.tenant("acme", subject="tester") as ward:
        ward.execute("insert into patients (name) values ('Ada')")
        with pytest.raises(psycopg.errors.UndefinedFunction):
            ward.execute("select find_patients(name => 'Ada')")
        assert len(ward.execute("select find_patients(name_starts => 'ad')").fetchall()) == 1
        postgresql.execute("select ward.drop_search('clinic.patients', 'name')")
        with pytest.raises(psycopg.errors.UndefinedFunction):
            ward.execute("select find_patients(name_starts => 'ad')")
        assert ward.execute("select name from patients").fetchall() == [("Ada",)]
    with pytest.raises(psycopg.errors.DatabaseError) as error:
        postgresql.execute("select ward.drop_search('clinic.patients', 'name')")
    assert error.value.sqlstate == "WK204"


@pytest.mark.parametrize(
    ("statement", "sqlstate"),
    [
        ("select ward.add_search('clinic.patients', 'city', '{exact}')", "WK204"),
        ("select ward.add_search('clinic.icd10', 'title', '{exact}')", "WK204"),
        ("select ward.add_search('clinic.patients', 'name', '{}')", "WK271"),
        ("select ward.add_search('clinic.patients', 'name', '{range}')", "WK271"),
        ("select ward.add_search('clinic.patients', 'name', '{fuzzy}')", "WK271"),
        ("select ward.add_search('clinic.patients', 'name', '{words}', 'digits')", "WK271"),
        ("select ward.add_search('clinic.patients', 'name', '{exact}')", "WK271"),
        ("select ward.add_search('clinic.patients', 'birth_date', '{prefix}')", "WK271"),
        ("select ward.add_search('clinic.patients', 'ssn', '{prefix}', p_step => 1)", "WK271"),
    ],
)
def test_what_cannot_be_searched_so_is_refused(shared: Database, statement: str, sqlstate: str) -> None:
    with shared.admin() as admin, pytest.raises(psycopg.errors.DatabaseError) as error:
        admin.execute(statement)
    assert error.value.sqlstate == sqlstate


def test_a_value_with_too_many_terms_is_refused_and_not_lost(shared: Database) -> None:
    with shared.tenant("acme", subject="a") as ward, pytest.raises(psycopg.errors.DatabaseError) as error:
        ward.execute(
            "insert into patients (name) select string_agg(n::text, ' ') from generate_series(1, 10001) as n"
        )
    assert error.value.sqlstate == "WK273"


def test_few_values_are_searched_for_a_reason_only(postgresql: Connection) -> None:
    postgresql.execute("create type clinic.sex as enum ('f', 'm')")
    postgresql.execute("create table clinic.people (id bigint primary key, sex clinic.sex)")
    postgresql.execute("select ward.protect('clinic.people', seal => '{sex}')")
    add = "select ward.add_search('clinic.people', 'sex', '{exact}', p_accept_leakage => %s)"
    with pytest.raises(psycopg.errors.DatabaseError) as error, postgresql.transaction():
        postgresql.execute(add, [None])
    assert error.value.sqlstate == "WK271" and "fewer than 32" in str(error.value)
    postgresql.execute(add, ["counted in public anyway"])
    assert postgresql.execute("select accepted from ward_internal.searches").fetchall() == [
        ("counted in public anyway",)
    ]


def test_what_tokens_tell_is_counted_for_each_tenant(database: Database, postgresql: Connection) -> None:
    postgresql.execute(MODELS)
    tells = """
        select slug, column_name, kind, rows, distinct_values, round(commonest_value::numeric, 2)::float,
            tells_too_much
        from ward.search_leakage where column_name in ('name', 'ssn') and kind in ('exact', 'words')
        order by 1, 2, 3"""
    assert {row[3:] for row in postgresql.execute(tells)} == {(0, None, None, None)}
    insert = """
        insert into patients (name, ssn) select 'Name ' || n %% %s, to_char(n, '999999999')
        from generate_series(1, %s) as n"""
    with database.tenant("acme", subject="t") as ward, database.tenant("globex", subject="t") as other:
        ward.execute(insert, [10, 1000])
        other.execute(insert, [10, 900])
    postgresql.commit()
    postgresql.execute("analyze sealed_acme.patients, sealed_globex.patients")
    assert postgresql.execute(tells).fetchall() == [
        ("acme", "name", "exact", 1000, 10, 0.1, True),
        ("acme", "name", "words", 1000, 10, 0.1, True),
        ("acme", "ssn", "exact", 1000, 1000, None, False),
        ("globex", "name", "exact", 900, 10, 0.1, False),
        ("globex", "name", "words", 900, 10, 0.1, False),
        ("globex", "ssn", "exact", 900, 900, None, False),
    ]
    common = "select max(commonest_token) from ward.search_leakage where slug = 'acme' and kind = 'words'"
    assert postgresql.execute(common).fetchone() == (1.0,)  # the word: name

    def complaints() -> set[str]:
        (check,) = (each for each in checks()["models"] if each.name == "searches-tell-little")
        return {problem.object for problem in check.run("models", Server(postgresql)).problems}

    assert complaints() == {"clinic.patients.name"}
    accept = "select ward.accept_leakage('clinic.patients', %s, %s)"
    for column, reason in (("name", " "), ("city", "why"), ("birth_place", "why")):
        with pytest.raises(psycopg.errors.DatabaseError) as error, postgresql.transaction():
            postgresql.execute(accept, [column, reason])
        assert error.value.sqlstate in ("WK204", "WK271", "42703")
    postgresql.execute(accept, ["name", "a test"])
    assert complaints() == set()
    event = "select detail from ward.events where kind = 'search leakage accepted'"
    assert postgresql.execute(event).fetchone() == (
        {"table": "clinic.patients", "column": "name", "reason": "a test"},
    )
