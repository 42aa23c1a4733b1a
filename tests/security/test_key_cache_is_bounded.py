"""ATTACKS 44: keys leave a backend's memory with time, suspension and number."""

from __future__ import annotations

import time
from pathlib import Path

from tests.support.database import Connection
from tests.support.sqlstate import refused

from .conftest import SECRET, Wards

READ = "select ssn from patients where id = 1"
NOWHERE = "/nonexistent/keeper.sock"


def memory(connection: Connection) -> int:
    """Memory of the backend in KiB, without files: these become private when others that map them end."""
    rollup = Path(f"/proc/{connection.info.backend_pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous:"))


def test_ttl_ends_a_key(wards: Wards) -> None:
    wards.admin.execute("select ward.set('key_ttl', '1')")
    with wards.victim() as connection:
        assert connection.execute(READ).fetchone() == (SECRET,)
        wards.admin.execute("select ward.set('keeper_socket', %s)", [NOWHERE])
        assert connection.execute(READ).fetchone() == (SECRET,)
        time.sleep(1.1)
        with refused("WK102"):
            connection.execute(READ)


def test_suspension_ends_a_key(wards: Wards) -> None:
    slug = wards.database.new_tenant()
    with wards.database.tenant(slug, subject="x") as connection:
        connection.execute("insert into patients (id, name, ssn) values (1, 'x', 'y')")
        assert connection.execute(READ).fetchone() == ("y",)
        wards.admin.execute("select ward.set('keeper_socket', %s)", [NOWHERE])
        wards.admin.execute("select ward.suspend_tenant(%s)", [slug])
        wards.admin.execute("select ward.resume_tenant(%s)", [slug])
        with refused("WK102"):  # the key is gone although nobody asked while it was suspended
            connection.execute(READ)


def test_columns_nobody_has_do_not_fill_the_memory(wards: Wards) -> None:
    """Anybody may ask for the key of any column id; derived keys are kept for a bounded number."""
    made_up = """
        do $$ begin
          for n in %s..%s loop
            begin
              perform ward.unseal('\\x0103000001' || sha256(n::text::bytea) || '\\x00',
                substr(sha256(n::text::bytea), 1, 16), 'r');
            exception when sqlstate 'WK101' then null;
            end;
          end loop;
        end $$"""
    with wards.attacker() as connection:
        connection.execute(made_up % (1, 9000))
        before = memory(connection)
        connection.execute(made_up % (9001, 27000))
        assert memory(connection) - before < 12_000
        assert connection.execute(READ).fetchone() == ("999-11-1111",)


def test_tokens_do_not_fill_the_memory(wards: Wards) -> None:
    tenant, issuer = wards.database.tenant_id("acme"), wards.database.issuer
    with wards.attacker(None) as connection:
        before = 0
        for number in range(2_400):
            connection.execute(
                "select ward.login(%s)", [issuer.sign_token(tenant, f"subject {number}", "ADMIN")]
            )
            before = memory(connection) if number == 300 else before  # past the bound
        assert memory(connection) - before < 1_000
