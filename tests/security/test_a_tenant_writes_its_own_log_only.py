"""What a tenant's role does is in its own log, by its own context, and in no other (attack 49)."""

from __future__ import annotations

import pytest

from tests.support.database import Database
from tests.support.sqlstate import refused

from .conftest import Wards

STATEMENTS = (
    "alter default privileges grant select on tables to tenant_globex",
    "alter default privileges grant execute on functions to public",
    "alter default privileges for role tenant_acme revoke execute on functions from tenant_globex",
    "grant select on patients to tenant_globex",
    "revoke all on patients from tenant_globex",
    "do $$ begin alter default privileges grant usage on types to tenant_globex; end $$",
)


def others(database: Database) -> list[tuple[str, ...]]:
    """Return the entries of every log but acme's that acme's role made."""
    with database.admin() as admin:
        return admin.execute(
            "select operation, subject from ward_internal.audit_log"
            " where tenant_id <> %s and database_role = 'tenant_acme'",
            [database.tenant_id("acme")],
        ).fetchall()


@pytest.mark.parametrize("subject", [None, "victor"])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_tenants_role_grants_nothing_and_writes_nowhere(
    wards: Wards, statement: str, subject: str | None
) -> None:
    with wards.attacker(subject) as connection, refused("WK212"):
        connection.execute(statement)
    assert others(wards.database) == []


def test_without_the_refusal_the_attack_is_in_no_other_tenants_log_either(wards: Wards) -> None:
    wards.admin.execute("alter event trigger ward_refuse_grants disable")
    with wards.attacker("victor") as connection:
        connection.execute(STATEMENTS[0])
    assert others(wards.database) == []
    wards.admin.execute(
        "alter default privileges for role tenant_acme revoke select on tables from tenant_globex"
    )


def test_a_log_chosen_by_the_grantee_is_written_by_the_attacker(wards: Wards) -> None:
    """The attack, against the trigger as it was."""
    body = wards.admin.execute(
        "select pg_get_functiondef('ward_internal.on_grant()'::regprocedure)"
    ).fetchone()
    assert body is not None
    weak = (
        body[0]
        .replace("where login_role = session_user", "where false")
        .replace(
            "v_is_superuser boolean := (select rolsuper from pg_roles where rolname = session_user)",
            "v_is_superuser boolean := true",
        )
    )
    wards.admin.execute("alter event trigger ward_refuse_grants disable")
    wards.admin.execute(weak)
    with wards.attacker("victor") as connection:
        connection.execute(STATEMENTS[0])
    assert others(wards.database) == [("grant", "victor")]
    wards.admin.execute(
        "alter default privileges for role tenant_acme revoke select on tables from tenant_globex"
    )
