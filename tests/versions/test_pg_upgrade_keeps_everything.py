"""``wardkey upgrade`` through every major version here: sealed data, log, scribe, privileges, settings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.cli import Wardkey
from wardkey.embedded import Home

from .conftest import MAJORS

_TENANTS = ("acme", "globex")
_PATIENT = """insert into patients (mrn, ssn, given, family, birth_date, gender)
    values (%s, '999-11-2222', %s, 'Lovelace', '1815-12-10', 'female')"""
_SETTINGS = """
    select d.datname, r.rolname, s.setconfig from pg_db_role_setting as s
    join pg_roles as r on r.oid = s.setrole left join pg_database as d on d.oid = s.setdatabase
    order by 1, 2"""

# Columns as an earlier release would have made them.
_AS_BEFORE = """
    update pg_attribute set attoptions = nullif(array(
      select option from unnest(attoptions) as option where option not like 'pg_attver=%'), '{}')
    where attrelid >= 16384 and attoptions is not null returning 1"""


class Server:
    """The embedded server, through the command only."""

    def __init__(self, home: Home) -> None:
        self.run = Wardkey(home.path)

    def admin(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.run.json("status")["dsn"]) as connection:
            return connection.execute(query).fetchall()

    def tenant(self, slug: str, query: str, *values: str) -> list[tuple[Any, ...]]:
        token = self.run("token", "--tenant", slug, "--subject", "ada", "--role", "ADMIN").stdout.strip()
        dsn = self.run.json("status")["dsn"].replace("user=postgres", f"user=tenant_{slug}")
        with psycopg.connect(dsn, passfile=str(self.run.home / "pgpass")) as connection:
            connection.execute("select ward.login(%s)", [token])
            cursor = connection.execute(query, values)
            return cursor.fetchall() if cursor.description else []


def _is_behind(old: int, new: int) -> bool:
    """Whether pg_upgrade must fail because the new version is of an earlier release than the old one.

    From the releases of November 2026 on each new column has an option ``pg_attver``, which the dump of an
    earlier pg_dump sets as any other and an earlier server refuses: with one table and no wardkey too.
    """
    function = "binary_upgrade_set_next_attribute_versions"
    catalogs = [Path(f"/usr/share/postgresql/{major}/postgres.bki").read_text() for major in (old, new)]
    return function in catalogs[0] and function not in catalogs[1]


@pytest.mark.timeout(1800)
def test_everything_is_kept_through_each_version(new_home: Callable[[], Home]) -> None:
    server, moves = Server(new_home()), []
    server.run("up", PG_CONFIG=_pg_config(MAJORS[0]))
    server.run("migrate")
    for slug in _TENANTS:
        server.run("tenant", "create", slug)
    settings = server.admin(_SETTINGS)
    major, names = MAJORS[0], []
    for newer in (*MAJORS[1:], None):
        for slug in _TENANTS:
            server.tenant(slug, _PATIENT, f"{len(names)}", f"Ada {newer}")
        names.append((f"Ada {newer}",))
        if newer is not None:
            if _is_behind(major, newer):
                failed = server.run("upgrade", code=1, PG_CONFIG=_pg_config(newer))
                assert f"upgrade the packages of PostgreSQL {newer}" in failed.stderr
                for slug in _TENANTS:  # the old server goes on
                    assert server.tenant(slug, "select given from patients order by mrn") == names
                server.admin(_AS_BEFORE)
            server.run("upgrade", PG_CONFIG=_pg_config(newer))
            moves.append((str(major), str(newer)))
            major = newer
        assert server.admin("select current_setting('server_version_num')::int / 10000") == [(major,)]
        assert server.admin(_SETTINGS) == settings
        assert server.admin("select datconnlimit from pg_database where datname = 'wardkey'") == [(-1,)]
        assert server.admin("select * from ward_internal.open_to_public()") == []
        for slug in _TENANTS:
            assert server.tenant(slug, "select given from patients order by mrn") == names
    log = "from ward_internal.audit_log where operation"
    assert server.admin(f"select count(*) {log} = 'journal_gap'") == [(0,)], "it went on"
    versions = "select distinct detail ->> 'from', detail ->> 'to'"
    assert server.admin(f"{versions} {log} = 'server_upgraded' order by 1") == moves
    reads = server.admin("select count(*) from tenant_globex.audit_log where kind = 'r'")
    assert reads[0][0] >= len(MAJORS), "before and after each"
    server.run("keys", "rotate", "acme", "--reason", "moved")
    for slug in _TENANTS:
        server.run("audit", "verify", "--live", "--tenant", slug)
    doctor = subprocess.run(server.run.command("--json", "doctor"), capture_output=True, check=False)
    broken = [finding for finding in json.loads(doctor.stdout) if finding["outcome"] == "fail"]
    assert [finding for finding in broken if finding["check"] != "server-version"] == []


def _pg_config(major: int) -> str:
    return f"/usr/lib/postgresql/{major}/bin/pg_config"
