"""The programs of docs/examples/drivers use a ward, direct and behind PgBouncer, and say the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest

from tests.drivers.conftest import EXAMPLES, Way

SAID = """\
inserted chest pain
updated cough
deleted batch 99
types 26
prepared cough
cursor 99 batch 0 batch 98
savepoint 23505 specimens specimens_accession_key
goes on 1
refused WK002 wardkey: token is not valid: it is not a compact JWS
hint ask your identity provider for a new token; issuers are listed in ward.issuers
refused WK001 wardkey: no tenant context in this transaction
"""
NODE_MODULES = Path(sys.prefix) / "node/node_modules"  # by tools/setup.sh
JAR = "/usr/share/java/postgresql.jar"  # of libpostgresql-jdbc-java
PROGRAMS = {
    "asyncpg": [sys.executable, EXAMPLES / "asyncpg_app.py"],
    "pg8000": [sys.executable, EXAMPLES / "pg8000_app.py"],
    "node-postgres": ["node", "app.mjs"],
    "JDBC": ["java", "-XX:TieredStopAtLevel=1", "-cp", JAR, EXAMPLES / "Jdbc.java"],
}


# what each of them has left in the row of all types, as PostgreSQL writes it
WRITTEN = {
    "note": "Ünïcode, 'quoted'",
    "rack": "R-17",
    "shelf": "B   ",
    "fasting": True,
    "tubes": -32768,
    "volume": 2147483647,
    "serial": 9007199254740993,
    "ratio": 0.5,
    "factor": 0.1,
    "collected_on": "2026-03-29",
    "collected_at": "2026-03-29T01:30:00.123456+00:00",
    "read_at": "2026-03-29T02:30:00.123456",
    "daily_at": "23:59:59.999999",
    "called_at": "12:00:00+05:45",
    "kept": "40 days 03:00:00.000001",
    "device": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "message": {"b": 1, "a": [None, "x"]},
    "details": {"a": {"b": [1, 2]}},
    "image": "\\x" + bytes(range(256)).hex(),
    "codes": ["a,b", 'c"d', None],
    "levels": [-1, 1],
    "positions": [[1, 2], [3, 4]],
    "counts": [9007199254740993],
    "state": "used up",
}


@pytest.mark.parametrize("driver", PROGRAMS)
def test_program(way: Way, driver: str, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "node/app.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    token = way.database.token("acme", "dr.grey")
    environment = {
        "PATH": f"{os.environ['PATH']}:{sys.prefix}/bin",  # where Node.js is if the system has none
        "TZ": "America/St_Johns",  # no driver may take a time for one of its machine's zone
        "WARDKEY_WARD_DSN": way.url,
        "PGPASSWORD": way.password,
        "WARDKEY_TOKEN": token,
        "WARDKEY_POOLER": "1" if way.is_pooled else "",
    }
    done = subprocess.run(
        PROGRAMS[driver],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert token not in done.stderr and way.password not in done.stderr
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == SAID
    with way.database.tenant("acme", subject="reader") as ward:
        ward.execute("set timezone = 'UTC'")
        query = (
            "select to_jsonb(s) - '{id,accession,result,address}'::text[], result, host(address)"
            " from specimens as s where accession = 'types'"
        )
        ((row, *further),) = ward.execute(query).fetchall()
    assert row == WRITTEN
    assert further == [Decimal("1234567890123456.7890"), "2001:db8::1"]
