"""``wardkey install`` on a server that is not the embedded one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.support.cli import Wardkey
from tests.support.keepers import Keeper
from wardkey.embedded import Cluster

_JOURNAL = "reads are journalled"


@pytest.fixture
def wardkey(cluster) -> Wardkey:
    return Wardkey(cluster.home.path)


@pytest.fixture
def bare(cluster) -> Iterator[str]:
    """The DSN of a database without the extension."""
    name = sql.Identifier("test_bare")
    with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(name))
        yield cluster.dsn("test_bare")
        connection.execute(sql.SQL("drop database {} with (force)").format(name))


def missing(output: str) -> list[str]:
    return [finding["requirement"] for finding in json.loads(output) if not finding["ok"]]


def test_check_changes_nothing(wardkey, bare):
    done = wardkey("--json", "--dsn", bare, "install", "--check", code=1)
    assert missing(done.stdout) == ["extension wardkey"]
    assert all(finding["fix"] for finding in json.loads(done.stdout) if not finding["ok"])
    with psycopg.connect(bare) as connection:
        assert connection.execute("select 1 from pg_extension where extname ~ 'wardkey'").fetchall() == []


def test_install_creates_the_extension_and_names_the_rest(wardkey, bare, cluster):
    done = wardkey("--json", "--dsn", bare, "install", code=1)
    assert missing(done.stdout) == ["keeper socket", "an issuer of tokens", _JOURNAL]
    assert all(finding["fix"] for finding in json.loads(done.stdout))
    socket = str(cluster.home.keeper_socket)
    done = wardkey("--json", "--dsn", bare, "install", "--keeper-socket", socket, code=1)
    assert missing(done.stdout) == ["an issuer of tokens", _JOURNAL]
    done = wardkey("--json", "--dsn", bare, "install", "--keeper-socket", f"{socket}x", code=1)
    assert "keeper within the server's reach" in missing(done.stdout)


def test_it_fails_while_reads_are_not_journalled(wardkey, cluster, database):
    on = ["--json", "--dsn", database.dsn(), "install", "--check"]
    done = wardkey(*on, code=1)
    assert missing(done.stdout) == [_JOURNAL]
    with database.admin() as admin:
        admin.execute("select ward.set('audit_slot', 'nobody_made_it')")
    (finding,) = [finding for finding in json.loads(wardkey(*on, code=1).stdout) if not finding["ok"]]
    assert "nobody_made_it is missing" in finding["detail"] and "wardkey scribe run" in finding["fix"]


def test_settings_that_want_a_restart_are_named_with_their_command(wardkey, new_home):
    home = new_home()
    lacking = {"wal_level": "replica", "max_locks_per_transaction": "64", "max_replication_slots": "0"}
    Cluster(home, settings=lacking).start()
    try:
        findings = {
            finding["requirement"]: finding
            for finding in json.loads(Wardkey(home.path)("--json", "install", "--check", code=1).stdout)
        }
        for name, fix in {
            "wal_level = logical": "alter system set wal_level = logical",
            "max_locks_per_transaction of 256 or more": "alter system set max_locks_per_transaction = 256",
            "max_replication_slots of 1 or more": "alter system set max_replication_slots = 10",
        }.items():
            assert not findings[name]["ok"] and fix in findings[name]["fix"], findings[name]
            assert "restart" in findings[name]["fix"]
    finally:
        Cluster(home).stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs a keeper beside the server's user")
def test_a_keeper_out_of_reach_is_told_from_one_that_refuses(wardkey, database, cluster):
    """A socket of another group, and a keeper that does not know the server's OS user, have other fixes."""

    def finding() -> dict[str, str]:
        socket = ["--keeper-socket", str(keeper.socket)]
        done = wardkey("--json", "--dsn", database.dsn(), "install", *socket, code=1)
        (reach,) = [each for each in json.loads(done.stdout) if "reach" in each["requirement"]]
        return dict(reach)

    server, keeper = cluster.home.data.stat().st_uid, Keeper()
    try:
        keeper.base.chmod(0o711)
        keeper.start()
        assert finding()["detail"] == "Permission denied" and "group" in finding()["fix"]
        keeper.socket.chmod(0o666)
        assert finding()["detail"] == "does not know the server's OS user"
        assert f"--allow-uid {server}" in finding()["fix"]
        keeper.stop()
        keeper.start("--allow-uid", str(server))
        keeper.socket.chmod(0o666)
        assert finding()["ok"]
    finally:
        keeper.remove()


def test_embedded_server_lacks_nothing(wardkey):
    assert missing(wardkey("--json", "install").stdout) == []


def test_latin1_database_is_refused(wardkey, cluster):
    with psycopg.connect(cluster.dsn("postgres"), autocommit=True) as connection:
        connection.execute(
            "create database test_latin1 template template0 encoding 'LATIN1' lc_collate 'C' lc_ctype 'C'"
        )
        try:
            done = wardkey("--json", "--dsn", cluster.dsn("test_latin1"), "install", code=1)
            assert missing(done.stdout) == ["encoding UTF8"]
        finally:
            connection.execute("drop database test_latin1 with (force)")


def test_tenant_is_no_superuser(wardkey, database):
    done = wardkey("--json", "--dsn", database.dsn("tenant_acme"), "install", code=1)
    assert missing(done.stdout) == ["superuser"]
