"""What the doctor says of versions, settings, pg_hba.conf and the keeper, and what heals it."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from tests.support.tokens import document
from wardkey.daemon.programs import clean_environment, run
from wardkey.doctor import Check, Problem, Server, checks, keeper, versions
from wardkey.doctor.settings import LOG_SETTINGS
from wardkey.embedded import Cluster, Home
from wardkey.embedded.kms_choice import Choice, forget, use
from wardkey.kms.configured import Configuration, write

ALL = {check.name: check for theme in checks().values() for check in theme}
LEAKS = {
    "log_statement": "all",
    "log_min_error_statement": "error",
    "log_min_duration_statement": "100",
    "log_min_duration_sample": "100",
    "log_transaction_sample_rate": "0.5",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "10",
    "log_error_verbosity": "verbose",
    "debug_print_parse": "on",
    "debug_print_rewritten": "on",
    "debug_print_plan": "on",
}


@pytest.fixture(scope="module")
def ill(cluster: Cluster, template: str) -> Iterator[Database]:
    with clone(cluster, template) as database:
        yield database


def look(check: str | Check, database: Database, home: Home | None = None) -> tuple[Problem, ...]:
    check = ALL[check] if isinstance(check, str) else check
    with database.admin() as connection:
        finding = check.run("", Server(connection, home))
    assert finding.outcome == (check.severity if finding.problems else "ok")
    assert not any(problem.detail.startswith("could not") for problem in finding.problems)
    return finding.problems


def fix(database: Database, problem: Problem) -> None:
    assert problem.fix is not None
    with database.admin() as connection:
        for statement in problem.fix.split(";"):
            if statement.strip():
                connection.execute(statement)


@pytest.mark.parametrize(
    ("version", "holes"),
    [
        (150020, 0),
        (150019, 1),
        (150018, 3),
        (160015, 0),
        (160014, 2),
        (170010, 2),
        (180006, 0),
        (180005, 2),
        (150002, 8),
        (200000, 0),
    ],
)
def test_versions_with_known_holes(version: int, holes: int) -> None:
    texts = versions.known_holes(version)
    assert len(texts) == holes
    assert all(hole.startswith("CVE-20") for hole in texts)


def test_every_leaking_setting_is_tried() -> None:
    assert LEAKS.keys() == LOG_SETTINGS.keys()


@pytest.mark.parametrize("name", LEAKS)
def test_leaking_setting_is_found_and_mended(name: str, ill: Database) -> None:
    assert look("log-keeps-quiet", ill) == ()
    with ill.admin() as connection:
        connection.execute(f"alter database {ill.name} set {name} = '{LEAKS[name]}'")
    (problem,) = look("log-keeps-quiet", ill)
    assert problem.object == f"setting {name}"
    fix(ill, problem)
    assert look("log-keeps-quiet", ill) == ()


@pytest.mark.parametrize(
    ("check", "setting", "value"),
    [
        ("settings-safe", "password_encryption", "md5"),
        ("no-telltale-library", "session_preload_libraries", "auto_explain"),
    ],
)
def test_other_setting_is_found_and_mended(check: str, setting: str, value: str, ill: Database) -> None:
    assert look(check, ill) == ()
    with ill.admin() as connection:
        connection.execute(f"alter database {ill.name} set {setting} = '{value}'")
    (problem,) = look(check, ill)
    fix(ill, problem)
    assert look(check, ill) == ()


def test_keeper_socket_that_everybody_reaches(cluster: Cluster, ill: Database) -> None:
    path = cluster.home.keeper_socket
    assert look("keeper-socket", ill) == ()
    mode = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode | 0o006)
    try:
        (problem,) = look("keeper-socket", ill)
        assert problem.fix is not None
        subprocess.run(problem.fix, shell=True, check=True)
        assert look("keeper-socket", ill) == ()
    finally:
        path.chmod(mode)


def test_keeper_directory_that_others_open(cluster: Cluster, ill: Database) -> None:
    directory = cluster.home.keeper
    assert look("keeper-private", ill, cluster.home) == ()
    directory.chmod(0o755)
    try:
        (problem,) = look("keeper-private", ill, cluster.home)
        assert problem.fix is not None
        subprocess.run(problem.fix, shell=True, check=True)
        assert look("keeper-private", ill, cluster.home) == ()
    finally:
        directory.chmod(0o700)


def test_kms_file_that_others_may_change(cluster: Cluster, ill: Database) -> None:
    path = cluster.home.orchestrator / "kms.json"
    assert look("kms-files", ill, cluster.home) == ()
    write(cluster.home.orchestrator, Configuration())
    try:
        assert look("kms-files", ill, cluster.home) == ()
        path.chmod(0o666)
        (problem,) = look("kms-files", ill, cluster.home)
        assert problem.object == str(path)
        (problem,) = look("keeper-private", ill, cluster.home)
        assert problem.fix is not None
        subprocess.run(problem.fix, shell=True, check=True)
        assert look("kms-files", ill, cluster.home) == look("keeper-private", ill, cluster.home) == ()
    finally:
        path.unlink()


def test_kms_file_of_the_keeper_that_is_not_the_orchestrators(cluster: Cluster, ill: Database) -> None:
    write(cluster.home.keeper, Configuration(regions=("elsewhere", "default")))
    try:
        (problem,) = look("kms-files", ill, cluster.home)
        assert "not the orchestrator's" in problem.detail
    finally:
        (cluster.home.keeper / "kms.json").unlink()


def test_keeper_whose_credential_manages_keks(cluster: Cluster, ill: Database, tmp_path: Path) -> None:
    """For one tenant, so that the cell goes on as it is."""
    tenant, (mine, other) = uuid4(), (tmp_path / "mine", tmp_path / "other")
    for file in (mine, other):
        file.write_text(json.dumps({"role_id": file.name, "secret_id": "s"}))
    uri = "vault://127.0.0.1:1/transit?tls=off"
    try:
        for admin, text in ((None, "no credential"), (mine, "orchestrator's credential too"), (other, None)):
            use(cluster.home, Choice(uri, credential=mine, admin_credential=admin), tenant)
            problems = look("kms-credentials", ill, cluster.home)
            assert [text in problem.detail for problem in problems] == ([True] if text else [])
    finally:
        forget(cluster.home, tenant)
    assert look("kms-credentials", ill, cluster.home) == ()


def test_keeper_that_does_not_answer(cluster: Cluster, ill: Database, tmp_path: Path) -> None:
    assert look("keeper-answers", ill) == ()
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    with ill.admin() as connection:
        connection.execute("select ward.set('keeper_socket', %s)", [str(dead)])
    try:
        (problem,) = look("keeper-answers", ill)
        assert problem.object == str(dead)
    finally:
        with ill.admin() as connection:
            connection.execute("select ward.set('keeper_socket', %s)", [str(cluster.home.keeper_socket)])


def test_keeper_of_another_version(ill: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look("keeper-version", ill) == ()
    monkeypatch.setattr(keeper, "__version__", "9.9.9")
    assert len(look("keeper-version", ill)) == 1


def test_issuer_that_only_the_database_trusts(cluster: Cluster, ill: Database) -> None:
    name = "https://only.example/database"
    with ill.admin() as connection:
        connection.execute("select ward.add_issuer(%s)", [Jsonb(document(issuer=name))])
    problems = {problem.object: problem for problem in look("issuers-agree", ill, cluster.home)}
    assert "wardkey issuer add" in (problems[f"issuer {name}"].fix or "")
    with ill.admin() as connection:
        connection.execute("select ward.remove_issuer(%s)", [name])
    assert f"issuer {name}" not in {problem.object for problem in look("issuers-agree", ill, cluster.home)}


def test_issuer_that_only_the_keeper_trusts(cluster: Cluster, ill: Database) -> None:
    embedded = ill.issuer.name
    with ill.admin() as connection:
        connection.execute("select ward.remove_issuer(%s)", [embedded])
    try:
        problems = {problem.object: problem.fix for problem in look("issuers-agree", ill, cluster.home)}
        assert problems[f"issuer {embedded}"] == f"wardkey issuer remove {embedded}"
    finally:
        with ill.admin() as connection:
            connection.execute("select ward.add_issuer(%s)", [Jsonb(ill.issuer.document())])


def test_local_kek_provider_is_told(ill: Database) -> None:
    assert len(look("keeper-provider", ill)) == 1


def test_pgbouncer_of_this_host(ill: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pgbouncer"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for version, problems in (("1.26.0", 1), ("1.26.1", 0), ("1.100.0", 0)):
        program.write_text(f"#!/bin/sh\necho 'PgBouncer {version}'\n")
        program.chmod(0o755)
        assert len(look("pgbouncer-version", ill)) == problems


def test_server_made_careless(new_home: Callable[[], Home]) -> None:
    """A server of one's own, weakened where only its administrator can, and what the command says of it."""
    home = new_home()
    careless = {"listen_addresses": "*", "max_prepared_transactions": "5", "fsync": "off"}
    cluster = Cluster(home, settings=careless)
    cluster.init()
    server = cluster.home.server_user()
    pg_checksums = [cluster.software.program("pg_checksums"), "--disable", "--pgdata", str(home.data)]
    run(pg_checksums, "pg_checksums", user=server, environment=clean_environment())
    (home.data / "local.conf").write_text("log_statement = 'all'\n")
    os.chown(home.data / "local.conf", server.uid, server.gid)
    cluster.start()
    hba = home.data / "pg_hba.conf"
    hba.write_text(hba.read_text() + "host all all 10.0.0.0/8 trust\n")
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute("grant connect on database postgres to public")
    with psycopg.connect(cluster.dsn()) as connection:
        connection.execute("create table left_behind (id int)")
        connection.execute("prepare transaction 'forgotten'")

    wardkey = Wardkey(home.path)
    expected = {
        "encrypted": "alter system set ssl = on",
        "authenticated": "scram-sha-256",
        "no-two-phase": "max_prepared_transactions = 0",
        "checksums": "pg_checksums --enable",
        "prepared-transactions": "rollback prepared 'forgotten';",
        "log-keeps-quiet": "alter system set log_statement = 'none'; select pg_reload_conf();",
        "other-databases-closed": "revoke all on database postgres from public;",
    }
    findings = {
        finding["check"]: finding["problems"]
        for finding in wardkey.json("doctor", code=4)
        if finding["outcome"] in ("warn", "fail")
    }
    assert findings.keys() == expected.keys()
    for check, fix in expected.items():
        assert fix in findings[check][0]["fix"]
    shown = wardkey("doctor", code=4).stdout
    assert "prepared-transactions" in shown
    assert "rollback prepared 'forgotten';" in shown

    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        for check in ("prepared-transactions", "log-keeps-quiet", "other-databases-closed"):
            for statement in findings[check][0]["fix"].rstrip(";").split(";"):
                connection.execute(statement)
    cluster.stop()
    pg_checksums[1] = "--enable"
    run(pg_checksums, "pg_checksums", user=server, environment=clean_environment())
    Cluster(home, settings={"fsync": "off"}).start()  # writes pg_hba.conf again
    healthy = wardkey("doctor").stdout
    assert "rollback" not in healthy
    assert not [f for f in json.loads(wardkey("--json", "doctor").stdout) if f["outcome"] in ("warn", "fail")]


def test_unreachable_server_is_one_clear_error(new_home: Callable[[], Home]) -> None:
    done = Wardkey(new_home().path)("doctor", code=3)
    assert "wardkey up" in done.stderr
