"""What the commands for tenants and tables do, say and refuse."""

from __future__ import annotations

import json
import subprocess

import psycopg
import pytest

from tests.support.cli import Wardkey


@pytest.fixture
def wardkey(cluster) -> Wardkey:
    return Wardkey(cluster.home.path)


@pytest.fixture
def on(wardkey, database) -> list[str]:
    """The option that names this test's database."""
    return ["--dsn", database.dsn()]


@pytest.fixture
def slug(wardkey):
    """A tenant of the embedded server's own database, which nobody clones."""
    name = "clitest"
    wardkey("tenant", "create", name)
    yield name
    wardkey("tenant", "drop", name, "--yes", name, "--force")


def test_tenant_of_the_embedded_server_keeps_its_password_in_the_home(wardkey, cluster, slug):
    (row,) = [row for row in wardkey.json("tenant", "list") if row["slug"] == slug]
    assert (row["login_role"], row["status"]) == ("tenant_clitest", "active")
    assert cluster.home.pgpass.stat().st_mode & 0o077 == 0
    with psycopg.connect(cluster.dsn(user="tenant_clitest")) as connection:
        assert connection.execute("select current_user").fetchone() == ("tenant_clitest",)


def test_tenant_of_another_server_gets_its_password_printed_once(wardkey, database, on):
    slug = "printed"
    made = json.loads(wardkey("--json", "tenant", "create", slug, "--name", "Printed Clinic", *on).stdout)
    assert made[0]["name"] == "Printed Clinic"
    dsn = database.tcp_dsn("tenant_printed")
    with psycopg.connect(dsn, passfile="/dev/null", password=made[0]["password"]) as connection:
        assert connection.execute("select current_user").fetchone() == ("tenant_printed",)
    assert "password" not in wardkey("--json", "tenant", "list", *on).stdout


def test_bounds_are_given_and_taken_back(wardkey, database, on):
    def limit():
        with database.admin() as connection:
            query = "select rolconnlimit from pg_roles where rolname = 'tenant_bounded'"
            return connection.execute(query).fetchone()[0]

    wardkey("tenant", "create", "bounded", "--connections", "3", *on)
    assert limit() == 3
    wardkey("tenant", "bound", "bounded", "connections", "5", *on)
    assert limit() == 5
    assert "default" in wardkey("tenant", "bound", "bounded", "connections", *on).stdout
    assert limit() == 100
    assert (
        json.loads(wardkey("--json", "tenant", "bound", "bounded", "x", *on, code=1).stderr)["sqlstate"]
        == "WK204"
    )


def test_reset_password(wardkey, database, on):
    slug = database.new_tenant()
    facts = json.loads(wardkey("tenant", "reset-password", slug, "--json", *on).stdout)
    dsn = database.tcp_dsn(f"tenant_{slug}")
    psycopg.connect(dsn, passfile="/dev/null", password=facts["password"]).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(database.dsn(f"tenant_{slug}"))  # the password that new_tenant() kept


@pytest.mark.parametrize(
    ("arguments", "code", "sqlstate"),
    [
        (["tenant", "create", "Bad Slug"], 1, "WK201"),
        (["tenant", "create", "acme"], 1, "WK202"),
        (["tenant", "suspend", "nobody"], 1, "WK203"),
        (["tenant", "drop", "nobody", "--yes", "nobody"], 1, "WK203"),
        (["table", "protect", "clinic.nothing"], 1, "42P01"),
        (["table", "share", "clinic.patients"], 1, "WK209"),
        (["token", "--tenant", "nobody", "--subject", "me", "--role", "ADMIN"], 1, "WK203"),
    ],
)
def test_refusals_have_a_code_and_a_hint(wardkey, on, arguments, code, sqlstate):
    error = json.loads(wardkey("--json", *on, *arguments, code=code).stderr)
    assert error["sqlstate"] == sqlstate
    assert error["error"]


@pytest.mark.parametrize(
    "arguments",
    [["frobnicate"], ["tenant", "create"], ["up", "now"], ["psql", "--tenant", "acme"]],
)
def test_wrong_usage_is_2(wardkey, arguments):
    assert wardkey(*arguments, code=2).stderr


def test_unreachable_server_is_3(wardkey):
    error = wardkey("--dsn", "host=/nowhere user=postgres", "tenant", "list", code=3).stderr
    assert error.startswith("error: ")
    assert " hint: " in error


def test_suspended_tenant_is_refused_until_resumed(wardkey, database, on):
    slug = database.new_tenant()
    wardkey("tenant", "suspend", slug, *on)
    with database.tenant(slug) as connection, pytest.raises(psycopg.Error) as refused:
        connection.execute("select ward.login_session(%s)", [database.token(slug)])
    assert refused.value.sqlstate == "WK005"
    wardkey("tenant", "resume", slug, *on)
    with database.tenant(slug, role="VIEWER") as connection:
        assert connection.execute("select count(*) from patients").fetchone() == (0,)


def test_drop_wants_the_slug_again_and_refuses_while_there_is_data(wardkey, database, on):
    slug = database.new_tenant()
    with database.tenant(slug, role="ADMIN") as connection:
        connection.execute("insert into patients (name) values ('Ann')")
    assert "--yes" in wardkey("tenant", "drop", slug, *on, code=1).stderr
    wardkey("tenant", "drop", slug, "--yes", "another", *on, code=1)
    assert "WK210" in wardkey("tenant", "drop", slug, "--yes", slug, *on, code=1).stderr
    wardkey("tenant", "drop", slug, "--yes", slug, "--force", *on)
    assert slug not in wardkey("tenant", "list", *on).stdout


def test_tables(wardkey, database, on):
    with database.admin() as connection:
        connection.execute("create table clinic.visits (id uuid primary key, note text, at timestamptz)")
        connection.execute("create table clinic.codes (code text primary key)")
    wardkey("table", "protect", "clinic.visits", "--seal", "note, at", *on)
    wardkey("table", "share", "clinic.codes", *on)
    wardkey("table", "add-sealed-column", "clinic.visits", "reason", "text", *on)
    rows = {row["table"]: row for row in json.loads(wardkey("--json", "table", "list", *on).stdout)}
    assert rows["clinic.visits"] == {
        "table": "clinic.visits",
        "kind": "protected",
        "sealed": ["at", "note", "reason"],
    }
    assert rows["clinic.codes"]["kind"] == "shared"


def test_psql_opens_inside_the_ward(wardkey, slug):
    query = "select ward.subject(), ward.role(), session_user"
    shown = wardkey("psql", "--tenant", slug, "--subject", "me", "--role", "VIEWER", "-Atc", query).stdout
    assert shown == "me|VIEWER|tenant_clitest\n"


def test_row_rules_are_added_listed_and_dropped(wardkey, database, on):
    wardkey("access", "rule", "list", *on)
    expression = "id = ward.claim('patient_id')::bigint"
    add = ["access", "rule", "add", "clinic.patients", expression, "--role", "VIEWER", "--name", "portal"]
    said = wardkey(*add, *on).stdout
    assert said == "clinic.patients: VIEWER only (id = (ward.claim('patient_id'::text))::bigint)\n"
    assert "WK260" in wardkey(*add, *on, code=1).stderr  # its name is taken
    (row,) = json.loads(wardkey("--json", "access", "rule", "list", "--table", "clinic.patients", *on).stdout)
    assert (row["table"], row["name"], row["roles"]) == ("clinic.patients", "portal", ["VIEWER"])
    wardkey("access", "rule", "drop", "clinic.patients", "portal", *on)
    refused = wardkey("access", "rule", "drop", "clinic.patients", "portal", *on, code=1).stderr
    assert "WK204" in refused and "wardkey access rule list" in refused


def test_claims_are_put_into_tokens(wardkey, slug):
    psql = ["psql", "--tenant", slug, "--subject", "me", "-Atc", "select ward.claim('team')"]
    assert wardkey(*psql, "--claim", "team=a=b").stdout == "a=b\n"
    token = ["token", "--tenant", slug, "--subject", "me", "--role", "VIEWER"]
    for claim in ("team", "role=ADMIN", "sub=x"):
        wardkey(*token, "--claim", claim, code=2)


def test_psql_shows_the_token_to_nobody(wardkey, slug):
    look = r"\! tr '\0' '\n' < /proc/$PPID/cmdline; env; echo children see this"
    done = wardkey("psql", "--tenant", slug, "--subject", "me", "-c", look, "-c", r"\set")
    assert "children see this" in done.stdout
    assert "eyJ" not in done.stdout + done.stderr


def test_psql_does_not_open_for_a_suspended_tenant(wardkey, slug):
    wardkey("tenant", "suspend", slug)
    assert "WK005" in wardkey("psql", "--tenant", slug, "--subject", "me", code=1).stderr
    wardkey("tenant", "resume", slug)


def test_psql_as_superuser_by_default(wardkey):
    assert wardkey("psql", "-Atc", "select session_user").stdout == "postgres\n"


def test_output_to_a_closed_pipe_is_no_error(wardkey):
    command = subprocess.list2cmdline(wardkey.command("tenant", "list"))
    done = subprocess.run(f"{command} | true", shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""
