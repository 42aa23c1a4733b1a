"""``wardkey install`` on a server that is not the embedded one."""

from __future__ import annotations

import json
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from tests.support.cli import Wardkey


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
    with psycopg.connect(bare) as connection:
        assert connection.execute("select 1 from pg_extension where extname ~ 'wardkey'").fetchall() == []


def test_install_creates_the_extension_and_names_the_rest(wardkey, bare, cluster):
    done = wardkey("--json", "--dsn", bare, "install", code=1)
    assert missing(done.stdout) == ["keeper socket", "an issuer of tokens"]
    assert all(finding["mend"] for finding in json.loads(done.stdout))
    socket = str(cluster.home.keeper_socket)
    done = wardkey("--json", "--dsn", bare, "install", "--keeper-socket", socket, code=1)
    assert missing(done.stdout) == ["an issuer of tokens"]
    done = wardkey("--json", "--dsn", bare, "install", "--keeper-socket", f"{socket}x", code=1)
    assert "keeper within the server's reach" in missing(done.stdout)


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
