"""Scripts of psql, functions, Python and Alembic are read as written; what cannot be read is named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

import wardkey.alembic  # noqa: F401 - adds operations
from wardkey.lint import Report, files_of, lint, lint_texts

PATIENTS = """create table clinic.patients (id bigint primary key, mark text, ssn text);
select ward.protect('clinic.patients', seal => '{ssn}');
"""


def told(report: Report) -> list[tuple[str, int, str]]:
    return [(one.path, one.line, one.rule.id) for one in report.findings]


def test_psql_is_no_obstacle_and_lines_stay() -> None:
    script = r"""\set ON_ERROR_STOP on
\if :{?slug} \else \set slug acme \endif
copy clinic.codes (code, display) from stdin;
1	it's "odd" $x$ ; -- \backslash
\.
select :'slug', :"slug", x::text, a[1:2] from t where n = :number \gset
select '\d :x' as "\d" -- \d
\;
select $$ \d :x $$ \gexec
alter language x owner to @extowner@;
select @extschema:cube@.f(1);
insert into t values (E'it\'s :x');
grant select on t to public;
"""
    report = lint_texts({"a.sql": script})
    assert told(report) == [("a.sql", 13, "WL115")]


def test_what_cannot_be_parsed_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a.sql").write_text(
        "select 1;\nselect 'Ada' from from patients;\ngrant select on t to public;\n"
    )
    (tmp_path / "b.sql").write_bytes(b"select '\xff';")
    (tmp_path / "c.sql").write_bytes("\ufefflisten x;\r\nlisten y;\r\n".encode())
    (tmp_path / "d.py").write_text("def f(:\n")
    (tmp_path / "e.sql").write_text("select 'open;\n")
    (tmp_path / "empty.sql").touch()
    report = lint(files_of([tmp_path]))
    assert [(Path(path).name, line, rule) for path, line, rule in told(report)] == [
        ("a.sql", 2, "WL001"),
        ("a.sql", 3, "WL115"),
        ("b.sql", 1, "WL001"),
        ("c.sql", 1, "WL505"),
        ("c.sql", 2, "WL505"),
        ("d.py", 1, "WL001"),
        ("e.sql", 1, "WL001"),
    ]
    assert not any("Ada" in one.message for one in report.findings)


def test_directories_are_read_but_for_what_is_not_theirs(tmp_path: Path) -> None:
    for name in ("a.sql", "b.py", "c.txt", ".venv/d.py", "node_modules/e.sql", "f/g.sql"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in files_of([tmp_path])] == [
        "a.sql",
        "b.py",
        "f/g.sql",
    ]
    assert files_of([tmp_path / "c.txt"]) == [tmp_path / "c.txt"]


@pytest.mark.parametrize(
    "body",
    [
        "raise notice '%', (select ssn from patients limit 1);",
        "select ssn into v_text from patients; raise notice '%', v_text;",
        "v_text := (select upper(ssn) from patients); raise exception using message = v_text;",
        "select * into v_row from patients; raise log '%', v_row.ssn;",
        "for v_row in select ssn as n from patients loop raise notice '%', v_row.n; end loop;",
        "with w as (select ssn as s from patients) select s into v_text from w; raise warning '%', v_text;",
    ],
)
def test_raise_is_followed_through_variables(body: str) -> None:
    function = f"do $$\ndeclare v_text text; v_row record;\nbegin\n{body}\nend $$;"
    assert told(lint_texts({"a.sql": PATIENTS + function})) == [("a.sql", 6, "WL209")]
    harmless = function.replace("ssn", "mark")
    assert told(lint_texts({"a.sql": PATIENTS + harmless})) == []


def test_a_variable_is_what_it_was_at_the_time() -> None:
    body = "raise notice '%', v_text; select ssn into v_text from patients; v_text := 'none';"
    function = f"do $$ declare v_text text; begin {body} raise notice '%', v_text; end $$;"
    assert told(lint_texts({"a.sql": PATIENTS + function})) == []


def test_a_body_that_cannot_be_read_is_a_note() -> None:
    script = "create function f() returns int language plpgsql as $$ begin retrun 1; end $$;"
    report = lint_texts({"a.sql": script})
    assert report.findings == ()
    assert report.notes[0][:2] == ("a.sql", 1)


@pytest.mark.parametrize(
    "query",
    [
        "insert into x (y) select ssn from patients",
        "insert into x (y) select p.ssn from clinic.patients as p join t on true",
        "insert into x (y) select s from (select upper(ssn) as s from tenant_acme.patients) as q",
        "insert into x (y) with w as (select * from patients) select w.ssn from w",
        "insert into x (y) select mark from patients union all select ssn from patients",
        "with w as (select ssn as s from patients) insert into x (y) select s from w",
        "insert into x (y) select to_jsonb(p) from patients as p",
        "insert into x (y) values ((select max(ssn) from patients))",
    ],
)
def test_a_value_is_followed_through_queries(query: str) -> None:
    assert told(lint_texts({"a.sql": PATIENTS + query})) == [("a.sql", 3, "WL201")]


@pytest.mark.parametrize(
    "query",
    [
        "insert into x (y) select count(ssn) from patients",
        "insert into x (y) select ssn is null from patients",
        "insert into x (y) select ssn from elsewhere.patients",
        "insert into x (y) select o.ssn from patients as p join others as o on o.id = p.id",
        "insert into x (y) select mark from patients where exists (select ssn from patients)",
        "insert into patients (id, ssn) select 7, ssn from patients",
    ],
)
def test_what_tells_no_value_is_not_found(query: str) -> None:
    assert told(lint_texts({"a.sql": PATIENTS + query})) == []


def test_tables_are_known_from_all_files_and_from_a_live_database() -> None:
    query = {"q.sql": "insert into x (y) select ssn from clinic.patients;"}
    assert told(lint_texts(query)) == []
    assert told(lint_texts({**query, "later.sql": PATIENTS})) == [("q.sql", 1, "WL201")]
    listed = '[{"table": "clinic.patients", "kind": "protected", "sealed": ["ssn"]}]'
    assert told(lint_texts(query, listed)) == [("q.sql", 1, "WL201")]


def test_python_is_read_with_its_parameters() -> None:
    program = '''
cursor.execute("select id from visits where room = %s and n = %(n)s", [room])
connection.execute(text("select id from visits where room = :room"), {"room": room})
cursor.execute(sql.SQL("select {} from {} where x = 1").format(Identifier("a"), Identifier("b")))
cursor.execute(
    """
    select 1;
    listen {channel}
    """
)
x = f"insert into {table} values (1)"
cursor.execute(f"select 1 from {table} where id = {id}")
cursor.execute("select 1 from t where name = '%s'" % name)
cursor.execute("select 1 from t where name = '" + name + "'")
cursor.execute(f"select {what}")
cursor.execute("select from from")
print("select your seat from the list below, please")
'''
    report = lint_texts({"a.py": program})
    assert told(report) == [("a.py", 8, "WL505"), *(("a.py", line, "WL511") for line in (12, 13, 14))]
    assert [note[1] for note in report.notes] == [16]


def test_operations_of_alembic_are_read_as_sql() -> None:
    revision = """
from alembic import op
import sqlalchemy as sa

def upgrade():
    op.create_table(
        "people",
        sa.Column("id", sa.BigInteger, primary_key=True),
        sa.Column("surname", sa.String(80)),
        sa.Column("ssn", sa.String(80)),
        schema="clinic",
    )
    op.protect_table("people", seal=["ssn"], schema="clinic")
    op.add_column("people", sa.Column("phone", sa.String), schema="clinic")
    op.alter_column("people", "surname", nullable=False, schema="clinic")
    op.create_index("i", "people", ["ssn"], schema="clinic")
    op.create_check_constraint("c", "people", "surname <> ''", schema="clinic")
    op.create_foreign_key("f", "people", "rooms", ["id"], ["id"], source_schema="clinic")
    op.drop_column("people", "surname", schema="clinic")
    op.drop_table("people", schema="clinic")
    op.create_table(name, *columns)

def downgrade():
    op.drop_table("people", schema="clinic")
"""
    report = lint_texts({"r.py": revision})
    assert told(report) == [
        ("r.py", 6, "WL301"),
        ("r.py", 14, "WL303"),
        ("r.py", 15, "WL403"),
        ("r.py", 16, "WL206"),
        ("r.py", 17, "WL404"),
        ("r.py", 18, "WL404"),
        ("r.py", 19, "WL409"),
        ("r.py", 20, "WL408"),
    ]
    assert [note[1] for note in report.notes] == [21]


def _plain_sql(upgrade: str) -> str:
    """What a revision executes: Alembic writes it down instead."""
    written = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "literal_binds": True, "output_buffer": written}
    )
    with Operations.context(context) as op:
        exec(upgrade, {"op": op, "sa": sa})
    return written.getvalue()


@pytest.mark.parametrize(
    ("operations", "rules"),
    [
        ('op.protect_table("a", ["ssn"], masks={"ssn": "last4"}, schema="x")', []),
        ('op.protect_table("a", {"n": "note"}, audit="off", audit_reason="why", schema="x")', ["WL305"]),
        ('op.protect_table("a", seal=["ssn"], schema="x"); op.drop_column("a", "n", schema="x")', ["WL409"]),
        ('op.protect_table("a", ["ssn"], schema="x"); op.drop_model_column("a", "n", schema="x")', []),
        (
            'op.protect_table("a", ["ssn"], schema="x");'
            'op.change_model_type("a", "n", sa.Date(), schema="x")',
            ["WL402"],
        ),
        ('op.share_table("a", schema="x")', ["WL311"]),
        (
            'op.protect_table("a", {"ssn": "note"}, schema="x");'
            'op.add_sealed_column("a", "phone", sa.Text, classified="identifier", schema="x");'
            'op.create_index("i", "a", ["phone"], schema="x")',
            ["WL206"],
        ),
    ],
)
def test_operations_are_read_as_what_they_execute(operations: str, rules: list[str]) -> None:
    revision = f"""
op.create_table(
    "a",
    sa.Column("id", sa.BigInteger, primary_key=True),
    sa.Column("ssn", sa.Text),
    sa.Column("n", sa.Text),
    schema="x",
)
{operations}
"""
    for name, text in (("r.py", revision), ("r.sql", _plain_sql(revision))):
        told_of = [one[2] for one in told(lint_texts({name: text})) if one[2] < "WL5"]
        assert told_of == rules, text


def test_tables_that_python_names_are_not_taken_for_unprotected() -> None:
    revision = """
op.execute("create table x.a (id bigint primary key, ssn text)")
for table in tables:
    # wardkey: ignore WL511 because they are constants
    op.execute(f"select ward.protect('x.{table}', seal => '{{{columns}}}')")
"""
    assert told(lint_texts({"r.py": revision})) == []


def test_our_own_scripts_and_examples_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """WL116 and WL118 are about the inside of wardkey, which this is."""
    monkeypatch.chdir(Path(__file__).parents[2])
    report = lint(files_of([Path("sql"), Path("migrations"), Path("docs")]), without=("WL116", "WL118"))
    assert len(report.files) > 40
    assert report.findings == ()
    # the parser of PL/pgSQL has no catalog: it does not know the fields of composite variables
    assert [note for note in report.notes if "is not a known variable" not in note[2]] == []
