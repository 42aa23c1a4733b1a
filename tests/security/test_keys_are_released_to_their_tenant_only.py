"""ATTACKS 42: a superuser, another OS user, a wrapped key in a strange place, a replaced commitment."""

from __future__ import annotations

import os
import subprocess
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

from tests.support.database import Connection
from tests.support.sqlstate import refused
from wardkey.embedded.issuer import EmbeddedIssuer

from .conftest import SECRET, Wards

SSN = "select ssn from patients where id = 1"
KEY = """
    select version, kek, kek_version, wrapped, commitment
      from ward_internal.tenant_keys where tenant_id = %s"""


def ask_as_the_server(wards: Wards, tenant: UUID, key_of: UUID, token: str) -> str:
    """Ask the keeper out of a backend, as a superuser's PL/Python may: "released" or an SQLSTATE."""
    version, kek, kek_version, wrapped, committed = wards.admin.execute(KEY, [key_of]).fetchone()  # type: ignore[misc]
    code = f"""
        from wardkey_pg.keeper import KeeperClient
        from wardkey_pg.keyring import WrappedKey
        from wardkey_core.errors import WardError
        try:
            keeper = KeeperClient({str(wards.database.cluster.home.keeper_socket)!r}, 3.0, lambda: None)
            keys, masked, *_ = keeper.release(
                {str(tenant)!r},
                WrappedKey({version}, "", {kek!r}, {kek_version!r}, {wrapped!r}, {committed!r}), {token!r},
                ["clinical"])
            outcome = "released" if len(keys["clinical"]) == 32 and not masked else "nonsense"
        except WardError as error:
            outcome = error.sqlstate
        plpy.execute(plpy.prepare("select set_config('test.outcome', $1, false)", ["text"]), [outcome])
    """
    lines = "\n".join(line[8:] for line in code.splitlines())
    wards.admin.execute(f"do language plpython3u $code${lines}$code$")
    row = wards.admin.execute("select current_setting('test.outcome')").fetchone()
    assert row
    return str(row[0])


def test_superuser_needs_the_tenants_token(calm: Wards) -> None:
    acme, globex = calm.database.tenant_id("acme"), calm.database.tenant_id("globex")
    own, theirs = calm.token("acme"), calm.token("globex")
    assert ask_as_the_server(calm, globex, globex, theirs) == "released"  # the way works, with the token
    assert ask_as_the_server(calm, globex, globex, own) == "WK103"
    assert ask_as_the_server(calm, globex, globex, "") == "WK103"
    assert ask_as_the_server(calm, globex, globex, "a.b.c") == "WK002"
    assert ask_as_the_server(calm, globex, globex, theirs[:-4] + "AAAA") == "WK002"
    assert ask_as_the_server(calm, acme, globex, own) == "WK103"  # B's wrapped key under A's name


def test_issuer_a_superuser_adds_to_the_database_does_not_move_the_keeper(
    wards: Wards, tmp_path: Any
) -> None:
    """The database believes it; the sealed columns stay shut, because the keeper has its own list."""
    forger = EmbeddedIssuer.open(tmp_path / "forger", "forged")
    wards.admin.execute("select ward.add_issuer(%s)", [Jsonb(forger.document())])
    token = forger.sign_token(wards.database.tenant_id("globex"), "forger", "ADMIN")
    with wards.database.admin() as connection:
        connection.execute("set session authorization tenant_globex")
        connection.execute("select ward.login_session(%s)", [token])
        assert connection.execute("select city from tenant_globex.patients where id = 1").fetchone() == (
            "Shelbyville",
        )
        with refused("WK002", "WK103"):
            connection.execute("select ssn from tenant_globex.patients where id = 1")


def test_superuser_sees_ciphertext_only(calm: Wards) -> None:
    whole = repr(calm.admin.execute("select * from clinic.patients").fetchall())
    assert SECRET not in whole
    assert "Bob" not in whole
    with refused("WK001"):
        calm.admin.execute("select * from tenant_globex.patients")
    value = "select ward.unseal(ssn, uuid_send(c.id), int8send(p.id)) from clinic.patients p"
    with refused("WK001"):
        calm.admin.execute(
            f"{value}, ward_internal.sealed_columns c where c.name = 'ssn' and ssn is not null"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_another_os_user_does_not_reach_the_socket(calm: Wards) -> None:
    script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    home = calm.database.cluster.home
    command = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "/usr/bin/python3",
        "-c",
        script,
    ]
    done = subprocess.run([*command, str(home.keeper_socket)], capture_output=True, text=True)
    assert "PermissionError" in done.stderr
    for path in (home.keeper, home.issuer):
        assert path.stat().st_mode & 0o077 == 0
        listing = subprocess.run([*command[:4], "ls", str(path)], capture_output=True, text=True)
        assert listing.returncode != 0
    server = home.server_user()
    as_server = [
        "setpriv",
        f"--reuid={server.uid}",
        f"--regid={server.gid}",
        "--init-groups",
        "ls",
        str(home.keeper),
    ]
    assert (
        subprocess.run(as_server, capture_output=True).returncode != 0
    )  # nor the database's own user the keys


def cold(wards: Wards, slug: str) -> Connection:
    """A connection whose backend holds no key yet."""
    wards.admin.execute("update ward_internal.tenants set key_epoch = key_epoch + 1")
    return wards.database.tenant(slug, subject="reader")


def test_wrapped_key_of_another_tenant_is_refused(wards: Wards) -> None:
    """B's wrapped key in A's row, A's token: the KMS opens it for B's id only."""
    swap = """update ward_internal.tenant_keys a set (kek, kek_version, wrapped, commitment) =
        (select {} from ward_internal.tenant_keys b where b.tenant_id = %(theirs)s)
        where a.tenant_id = %(own)s"""
    who = {"own": wards.database.tenant_id("acme"), "theirs": wards.database.tenant_id("globex")}
    wards.admin.execute(swap.format("b.kek, b.kek_version, b.wrapped, b.commitment"), who)
    wards.admin.execute(
        "update sealed_acme.patients"
        " set ssn = (select ssn from sealed_globex.patients where id = 1) where id = 1"
    )
    with cold(wards, "acme") as connection, refused("WK103"):
        connection.execute(SSN)
    wards.admin.execute(swap.format("a.kek, a.kek_version, b.wrapped, b.commitment"), who)
    with cold(wards, "acme") as connection, refused("WK103"):
        connection.execute(SSN)


def test_replaced_commitment_is_noticed(wards: Wards) -> None:
    wards.admin.execute("update ward_internal.tenant_keys set commitment = sha256(commitment)")
    with cold(wards, "acme") as connection:
        for statement in (SSN, "insert into patients (id, name) values (30, 'x')"):
            with refused("WK105"):
                connection.execute(statement)


def test_damaged_wrapped_key_is_refused(wards: Wards) -> None:
    wards.admin.execute(
        "update ward_internal.tenant_keys set wrapped = set_byte(wrapped, 5, get_byte(wrapped, 5) # 1)"
    )
    with cold(wards, "acme") as connection, refused("WK103"):
        connection.execute(SSN)


def test_release_log_has_each_and_no_secret(calm: Wards) -> None:
    token = calm.token("globex", subject="logged")
    ask_as_the_server(calm, calm.database.tenant_id("globex"), calm.database.tenant_id("globex"), token)
    ask_as_the_server(calm, calm.database.tenant_id("acme"), calm.database.tenant_id("globex"), token)
    text = (calm.database.cluster.home.keeper / "release.log").read_text()
    assert "refused" in text
    assert "released" in text
    assert token.split(".")[2] not in text
