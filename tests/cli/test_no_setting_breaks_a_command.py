"""Settings of database, role and environment change nothing that a command or a daemon does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.cli import Wardkey
from tests.support.database import Database, clone
from wardkey.daemon import sessions
from wardkey.embedded import Cluster

HOSTILE = {
    "search_path": "nowhere",
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "Pacific/Chatham",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "lc_monetary": "C.UTF-8",
    "standard_conforming_strings": "off",
    "backslash_quote": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "xmlbinary": "hex",
    "xmloption": "document",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "statement_timeout": "1",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "1",
    "idle_session_timeout": "1",
    "exit_on_error": "on",
    "check_function_bodies": "off",
    "default_tablespace": "nowhere",
    "default_table_access_method": "nothing",
    "password_encryption": "md5",
    "client_encoding": "LATIN1",
}
OF_SUPERUSERS = {
    "session_replication_role": "replica",
    "lc_messages": "C.UTF-8",
    "plpgsql.variable_conflict": "use_variable",
    "plpgsql.extra_errors": "all",
}
ENVIRONMENT = {
    "PGOPTIONS": " ".join(f"-c {name}={value.replace(' ', '')}" for name, value in HOSTILE.items()),
    "PGTZ": "Pacific/Chatham",
    "PGDATESTYLE": "SQL, DMY",
    "PGCLIENTENCODING": "LATIN1",
    "PGHOSTADDR": "192.0.2.1",
    "PGGSSENCMODE": "require",
    "PGCHANNELBINDING": "require",
    "PGTARGETSESSIONATTRS": "standby",
    "PGPORT": "1",
    "PGDATABASE": "nowhere",
    "PGAPPNAME": "somebody else",
}


def test_every_pinned_setting_is_tried() -> None:
    assert HOSTILE.keys() == sessions._SETTINGS.keys() | {"client_encoding"}
    later = sessions._AFTERWARDS.keys() | sessions._AS_SUPERUSER.keys()
    of_later_versions = {"transaction_timeout", "restrict_nonsystem_relation_kind", "event_triggers"}
    assert later - of_later_versions <= HOSTILE.keys() | OF_SUPERUSERS.keys()


@pytest.fixture(scope="module")
def hostile(cluster: Cluster, template: str) -> Iterator[Database]:
    """A database whose settings, and those of the superuser in it, are all hostile."""
    with clone(cluster, template) as database:
        with database.admin() as connection:
            for whom in (f"database {database.name}", f"role postgres in database {database.name}"):
                for name, value in (HOSTILE | OF_SUPERUSERS).items():
                    connection.execute(f"alter {whom} set {name} = '{value}'")
        yield database
        with sessions.connect(cluster.dsn("postgres"), "test") as connection:
            connection.execute(f"alter database {database.name} reset all")
            connection.execute(f"alter role postgres in database {database.name} reset all")


@pytest.mark.parametrize("replication", ["", "database"])
def test_connections_have_their_own_settings(
    hostile: Database, replication: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(psycopg.Error), psycopg.connect(hostile.dsn()) as connection:  # without them
        connection.execute("create table clinic.anything ()")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    further = {"replication": replication} if replication else {}
    with sessions.connect(hostile.dsn(), "wardkey", autocommit=True, **further) as connection:
        for name, value in (HOSTILE | OF_SUPERUSERS).items():
            row = connection.execute(f"show {name}").fetchone()
            assert row and row[0] != value, name
        assert connection.execute("select timestamptz '2026-01-31 12:00+00'::text").fetchone() == (
            "2026-01-31 12:00:00+00",
        )
        assert connection.execute("show application_name").fetchone() == ("wardkey",)


def test_commands_do_what_they_do_elsewhere(cluster: Cluster, hostile: Database, tmp_path: Path) -> None:
    wardkey = Wardkey(cluster.home.path)
    dsn, slug = hostile.dsn(), f"hostile_{hostile.name}"
    with sessions.connect(dsn, "test") as connection:
        connection.execute("create table clinic.notes (id int primary key, at timestamptz, body text)")
    for command in (
        f"tenant create {slug}",
        "table protect clinic.notes --seal body,at",
        "table add-sealed-column clinic.notes more interval",
        "table list",
        f"tenant suspend {slug}",
        f"tenant resume {slug}",
        "tenant list",
        "issuer list",
        f"keys rotate {slug} --reason test",
        f"keys reseal {slug}",
        "keys list",
        f"tenant export {slug} --to {tmp_path / 'sealed'} --sealed",
        f"keys rewrap {slug}",  # not --all: acme and globex, with their KEKs, are of every clone
        f"audit export --tenant {slug} --output {tmp_path / 'log'}",
        f"token --tenant {slug} --subject x --role ADMIN",
        "doctor",
        f"tenant drop {slug} --yes {slug} --force",
    ):
        wardkey(*command.split(), "--dsn", dsn, **ENVIRONMENT)
