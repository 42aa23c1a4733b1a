"""What a compliance officer asks: operators by command, of any tenant; an ADMIN in SQL, of its own log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from tests.audit.databases import SCRIPT, SECRET, START, Filled, clinic_month
from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from wardkey.embedded import Cluster

QUESTIONS = [
    "audit_entries()",
    "audit_acts(p_table => 'patients', p_row => '17')",
    "audit_acts('dr.jones')",
    "audit_entries(p_operations => '{refusal, tampered}')",
    "audit_coverage('patients')",
    "audit_of_key()",
    "audit_activity()",
    "audit_anomalies()",
]


@pytest.fixture(scope="module")
def filled(cluster: Cluster, template: str) -> Iterator[tuple[Database, Filled]]:
    with clone(cluster, template) as database, database.admin() as connection:
        log = clinic_month(connection)
        other = Filled(connection, "globex")
        other.login("mallory")
        other.read("mallory", "17", minute=1)
        yield database, log


@pytest.fixture
def ask(filled: tuple[Database, Filled]) -> Any:
    database, _ = filled
    wardkey = Wardkey(database.cluster.home.path)
    return lambda *words: wardkey.json("--dsn", database.dsn(), "audit", *words, "--tenant", "acme")


@pytest.fixture
def tell(filled: tuple[Database, Filled]) -> Any:
    database, _ = filled
    wardkey = Wardkey(database.cluster.home.path)
    return lambda *words: wardkey("--dsn", database.dsn(), "audit", *words, "--tenant", "acme").stdout


@pytest.fixture
def refused(filled: tuple[Database, Filled]) -> Any:
    database, _ = filled
    wardkey = Wardkey(database.cluster.home.path)
    on = ["--json", "--dsn", database.dsn(), "audit"]
    return lambda *words: json.loads(wardkey(*on, *words, "--tenant", "acme", code=1).stderr)


@pytest.mark.parametrize("table", ["patients", "clinic.patients"])
def test_who_read_a_row(ask, table):
    entries = ask("who-read", table, "17")["entries"]
    assert [row["subject"] for row in entries] == ["dr.jones"] * 16 + [SCRIPT] + ["dr.jones"] * 4
    assert entries[0]["at"] == "2026-03-02T10:52:00+00:00"
    assert (entries[0]["purpose"], entries[0]["role"], entries[0]["columns"]) == (
        "treatment", "EVALUATOR", ["name", "ssn"],
    )  # fmt: skip
    assert entries[16]["columns"] == ['name of "X"', "ssn"]
    march = ask("who-read", table, "17", "--from", "2026-03-03", "--to", "2026-03-05")
    assert len(march["entries"]) == 2
    assert (march["from"], march["to"]) == ("2026-03-03T00:00:00+00:00", "2026-03-05T00:00:00+00:00")
    assert [(part["table"], part["level"]) for part in march["levels"]] == [("patients", "row")]
    assert march["gaps"] == []


def test_queries_are_counted_and_are_no_read_of_a_row(filled, ask, tell):
    database, log = filled
    before = ask("who-read", "patients", "17")
    with database.admin() as connection:
        connection.execute(
            "insert into ward_internal.audit_log"
            " (tenant_id, at, kind, operation, model_id, context, statement)"
            " select tenant_id, at, 'r', 'query', model_id, context, statement"
            " from ward_internal.audit_log"
            " where tenant_id = %s and row_id = '17' and kind = 'r'",
            [log.tenant],
        )
        try:
            after = ask("who-read", "patients", "17")
            assert (before["queries"], after["queries"]) == (0, 21)
            assert after["entries"] == before["entries"]
            assert "queries   21 transactions" in tell("who-read", "patients", "17")
            did = ask("did", "dr.jones", "--from", "2026-03-02", "--to", "2026-03-03")["entries"]
            assert [row["operation"] for row in did].count("query") == 1
        finally:
            connection.execute("delete from ward_internal.audit_log where operation = 'query'")


def test_an_accounting_is_not_empty_by_a_typo(filled, refused):
    for words in (
        ("who-read", "patient", "17"),
        ("who-read", "patients", "4711"),
        ("who-read", "patients", "no such row"),
        ("who-read", "patients", "99999999999999999999"),
        ("did", "dr.jonse"),
        ("key", "3"),
    ):
        error = refused(*words)
        assert error["sqlstate"] == "WK228" and error["hint"], words
    assert "model tables: " in refused("who-read", "patient", "17")["hint"]


def test_a_row_is_known_by_every_spelling_of_its_key_and_though_nobody_read_it(filled, ask, tell):
    database, _ = filled
    for spelled in ("017", " 17 "):
        assert len(ask("who-read", "patients", spelled)["entries"]) == 21
    with database.admin() as connection:
        connection.execute(
            "insert into clinic.patients (tenant_id, id, name) select id, 9000, '\\x01'"
            " from ward_internal.tenants where slug = 'acme'"
        )
    answer = ask("who-read", "patients", "9000")
    assert answer["entries"] == []
    assert "nobody read it, as far as the log tells" in tell("who-read", "patients", "9000")
    with database.admin() as connection:
        connection.execute("delete from clinic.patients where id = 9000")
    assert ask("who-read", "patients", "09000")["entries"] == [], "the log knows a row that is gone"


def test_rows_of_keys_of_several_columns_are_known(database):
    with database.admin() as connection:
        connection.execute(
            "create table clinic.doses (code char(6), day integer, note text, primary key (code, day));"
            "select ward.protect('clinic.doses', seal => '{note}')"
        )
        with database.tenant("acme", subject="a", role="ADMIN") as tenant:
            tenant.execute("insert into doses values ('a', 7, 'x')")
            tenant.commit()
        query = """select ward_internal.audit_row(t.id, m.id, %s)
            from ward_internal.tenants as t, ward_internal.models as m
            where t.slug = 'acme' and m.face = 'doses'"""
        ((known,),) = connection.execute(query, ['["a ", "07"]']).fetchall()
        written = "select row_id from tenant_acme.audit_log where kind = 'w' and operation = 'insert'"
        assert connection.execute(written).fetchall() == [(known,)]
        for wrong in ('["a", 8]', '["a"]', "[]", "a", "{}", "7"):
            with pytest.raises(psycopg.Error) as unknown:
                connection.execute(query, [wrong])
            assert unknown.value.sqlstate == "WK228", wrong


def test_an_accounting_says_how_far_it_reaches(filled, ask, tell):
    database, _ = filled
    with database.admin() as connection:
        for level, reason in (("off", "a load"), ("statement", None), ("row", None)):
            connection.execute("select ward.set_audit('clinic.patients', %s, %s)", [level, reason])
    answer = ask("who-read", "patients", "17")
    assert answer["from"] == "2026-03-01T00:00:00+00:00", "where the log begins"
    assert [part["level"] for part in answer["levels"]] == ["row", "off", "statement", "row"]
    spans = [(part["from"], part["to"]) for part in answer["levels"]]
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    assert (spans[0][0], spans[-1][1]) == (answer["from"], answer["to"])
    shown = tell("who-read", "patients", "17")
    assert "READS ARE NOT JOURNALLED" in shown and "gaps      none" in shown
    assert [part["level"] for part in ask("did", "dr.jones")["levels"]] == ["off", "statement"]
    assert len(ask("who-read", "patients", "17", "--to", "2026-03-05")["levels"]) == 1
    with database.admin() as connection:
        query = "select * from ward.audit_coverage(p_to => '2026-03-05', p_tenant => 'acme')"
        assert [row[0] for row in connection.execute(query).fetchall()] == ["log"]


def test_entries_named_in_an_accounting_are_proven(filled, ask, tmp_path):
    database, _ = filled
    wardkey = Wardkey(database.cluster.home.path)
    for number, words in enumerate((("who-read", "patients", "17"), ("did", "dr.jones"))):
        (first, *_) = ask(*words)["entries"][-1]["ids"]
        proof = tmp_path / f"proof{number}"
        on = ["--dsn", database.dsn(), "audit"]
        wardkey(*on, "prove", str(first), "--tenant", "acme", "--output", str(proof))
        assert "proven" in wardkey("audit", "verify", str(proof)).stdout


def test_a_statement_that_may_have_read_the_row_is_told(filled):
    """Where only statements are journalled, the accounting must not leave it out."""
    database, log = filled
    with database.admin() as connection:
        connection.autocommit = False
        filler = Filled.__new__(Filled)
        filler.__dict__ = log.__dict__ | {"connection": connection}
        context = log.contexts["nurse.kim", "VIEWER"]
        filler.put("r", "read", 7, context=context, columns="name", row_id=None)
        rows = connection.execute(
            "select subject, row_ids from ward.audit_acts(p_table => 'patients', p_row => '17',"
            " p_to => %s, p_tenant => 'acme') where operation = 'read'",
            [START.replace(hour=9)],
        ).fetchall()
        assert rows == [("nurse.kim", None)]
        connection.rollback()


def test_what_a_person_did(ask):
    entries = ask("did", "dr.jones", "--to", "2026-03-03")["entries"]
    assert [row["operation"] for row in entries] == [
        "login",
        "key_released",
        *["read"] * 5,
        "update",
        *["read"] * 13,
    ]
    assert (
        entries[2]["rows"] == 1 and entries[2]["row_ids"] == ["1"] and entries[2]["table_name"] == "patients"
    )
    assert ask("did", "dr.jones", "--to", "2026-01-01")["entries"] == [], "not that early"


def test_who_was_refused(ask):
    refusal, tampered = ask("refused")
    assert (refusal["subject"], refusal["address"], refusal["detail"]) == (
        None,
        "203.0.113.9",
        {"sqlstate": "WK003"},
    )
    assert (tampered["operation"], tampered["subject"]) == ("tampered", "dr.jones")


def test_what_happened_to_a_key(ask):
    steps = [(row["operation"], row["who"]) for row in ask("key")]
    assert steps == [("provisioned", "postgres"), ("key_released", "dr.jones"), ("rotated", "postgres")]
    assert [row["operation"] for row in ask("key", "2")] == ["rotated"]


def test_anomalies_are_explained_and_the_steady_reader_is_none(ask):
    (anomaly,) = ask("anomalies")
    assert (anomaly["subject"], anomaly["day"], anomaly["rows"], anomaly["usual"]) == (
        "dr.jones",
        "2026-03-15",
        421,
        20.0,
    )
    assert anomaly["score"] > 100 and "2026-03-15" in anomaly["explanation"]
    assert ask("anomalies", "--score", "1000") == []
    assert ask("anomalies", "--to", "2026-03-05") == [], "three days are no usual"


def test_activity_is_drawn_for_the_terminal(ask, tell):
    assert sum(row["reads"] for row in ask("activity")) == 1420
    drawn = tell("activity")
    assert "dr.jones" in drawn and "█" in drawn
    lines = {line.split(" ")[-1]: line for line in drawn.splitlines()}
    assert lines["dr.jones"].index("█") == 2 * 2, "two in the morning"
    berlin = {line.split(" ")[-1]: line for line in tell("activity", "--zone", "Europe/Berlin").splitlines()}
    assert berlin["dr.jones"].index("█") == lines["dr.jones"].index("█") + 2


def test_no_name_steers_the_terminal(filled, tell):
    database, log = filled
    with database.admin() as connection:
        identity = connection.execute(
            "insert into ward_internal.audit_log (tenant_id, at, kind, operation, database_role, application)"
            " values (%s, %s, 'e', 'refusal', 'tenant_acme', %s) returning id",
            [log.tenant, START, "\x1b]0;owned\x07"],
        ).fetchone()
        shown = tell("refused")
        connection.execute("delete from ward_internal.audit_log where id = %s", identity)
    assert "\x1b" not in shown and "\\x1b]0;owned\\x07" in shown


@pytest.mark.parametrize(
    "words", [("who-read", "patients", "17"), ("did", "dr.jones"), ("refused",), ("key",), ("anomalies",)]
)
def test_answers_hold_no_value(ask, tell, words):
    assert SECRET not in json.dumps(ask(*words)) and SECRET not in tell(*words)


def test_an_admin_asks_the_same_of_its_own_log(filled):
    database, log = filled
    with database.tenant("acme", subject="officer", role="ADMIN") as connection:

        def ask(query: str) -> Any:
            return connection.execute(query).fetchall()

        reads = "audit_acts(p_table => 'patients', p_row => '17') where operation = 'read'"
        assert len(ask(f"select * from ward.{reads}")) == 21
        assert ask("select subject, rows from ward.audit_anomalies()") == [("dr.jones", 421)]
        assert len(ask("select * from ward.audit_entries(p_to => '2026-04-01')")) == log.tree.end
        refusals = "select operation, count(*) from ward.audit_entries(p_operations => '{refusal, tampered}')"
        assert ask(f"{refusals} group by 1 order by 1") == [("refusal", 1), ("tampered", 1)]
        assert ask("select sum(reads) from ward.audit_activity()") == [(1420,)]
        assert [row[0] for row in ask("select operation from ward.audit_of_key(2)")] == ["rotated"]
        with pytest.raises(psycopg.Error) as unknown:
            ask("select * from ward.audit_acts('mallory')")
        assert unknown.value.sqlstate == "WK228", "of another tenant"


def test_the_sealed_value_of_an_old_image_is_ciphertext(filled):
    database, _ = filled
    with database.tenant("acme", subject="officer", role="ADMIN") as connection:
        query = "select distinct old ->> 'name' from ward.audit_entries() where operation = 'update'"
        ((name,),) = connection.execute(query).fetchall()
    assert name.startswith("\\x01")


@pytest.mark.parametrize("question", QUESTIONS)
def test_nobody_else_is_answered(filled, question):
    database, _ = filled
    for role in ("EVALUATOR", "VIEWER", "ANALYST"):
        with (
            database.tenant("acme", subject="x", role=role) as connection,
            pytest.raises(psycopg.Error) as refused,
        ):
            connection.execute(f"select * from ward.{question}")
        assert refused.value.sqlstate == "WK212"
    with database.tenant("acme") as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute(f"select * from ward.{question}")
    assert refused.value.sqlstate == "WK001"
    with database.tenant("globex", subject="mallory", role="ADMIN") as connection:
        try:
            text = str(connection.execute(f"select * from ward.{question}").fetchall())
        except psycopg.Error as unknown:
            assert unknown.sqlstate == "WK228"
            text = str(unknown)
    assert "dr.jones" not in text and SECRET not in text


def test_a_tenant_has_no_way_to_the_functions_that_name_a_tenant(filled):
    database, log = filled
    with database.tenant("globex", subject="mallory", role="ADMIN") as connection:
        named = "select * from ward.audit_entries(p_tenant => %s)"
        for name in ("acme", str(log.tenant), "platform", "globex"):
            with pytest.raises(psycopg.Error) as refused:
                connection.execute(named, [name])
            assert refused.value.sqlstate == "WK212", name
        for query in (
            f"select * from ward_internal.audit_entries('{log.tenant}', null, null)",
            f"select * from ward_internal.audit_log where tenant_id = '{log.tenant}'",
            "select * from tenant_acme.audit_log",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(query)
    with database.admin() as connection:
        assert len(connection.execute(named, ["acme"]).fetchall()) >= log.tree.end
        connection.execute("set role tenant_globex")
        with pytest.raises(psycopg.Error) as refused:
            connection.execute(named, ["acme"])
        assert refused.value.sqlstate == "WK001", "the role of the caller counts, not of the session"
