"""ATTACKS 1, 2, 6: a context is not a setting, and no setting of a session or role changes who one is."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest

from tests.support.sqlstate import refused

from .conftest import SECRET, Wards

COUNT = "select count(*) from patients"
GUESSES = ("ward.tenant_id", "wardkey.tenant_id", "app.tenant_id", "app.current_tenant")


def test_no_custom_setting_is_believed(wards: Wards) -> None:
    victim = str(wards.database.tenant_id("globex"))
    with wards.attacker(None) as connection:
        for name in GUESSES:
            for is_local in (True, False):
                connection.execute("select set_config(%s, %s, %s)", [name, victim, is_local])
        assert (
            connection.execute("select ward.tenant_id(), ward.subject(), ward.role()").fetchone()
            == (None,) * 3
        )
        with refused("WK001"):
            connection.execute(COUNT)


def test_every_setting_a_tenant_may_change_leaves_the_rows_alone(wards: Wards) -> None:
    """Each is set to what it is not; whatever the query says then, it says nothing of the victim."""
    own = {"Ann Alpha", "Al Able"}
    with wards.attacker() as connection:
        settings = connection.execute(
            "select name, vartype, setting, enumvals from pg_settings where context = 'user'"
        ).fetchall()
        assert len(settings) > 100
        for name, kind, setting, values in settings:
            other = {
                "bool": ["off" if setting == "on" else "on"],
                "enum": [value for value in values or [] if value != setting],
            }.get(kind, [])
            for value in other:
                try:
                    connection.execute("select set_config(%s, %s, false)", [name, value])
                    names = {row[0] for row in connection.execute("select name from patients").fetchall()}
                except psycopg.Error as error:
                    assert SECRET not in str(error)
                    names = set()
                assert names <= own, name
            with suppress(
                psycopg.errors.FeatureNotSupported
            ):  # those of a transaction, from PostgreSQL 16 on
                connection.execute(f"reset {name}")


@pytest.mark.parametrize(
    "statement",
    [
        "set session_replication_role = replica",
        "set log_min_messages = debug5",
        "set session_preload_libraries = 'auto_explain'",
        "load 'auto_explain'",
        "alter role current_user set session_replication_role = replica",
        "alter role current_user in database postgres set log_statement = 'all'",
        "alter system set log_statement = 'all'",
        "alter role current_user bypassrls",
        "alter role current_user superuser",
        "alter role tenant_globex set search_path = public",
        "alter role tenant_globex password 'mine'",
        "alter role all set search_path = public",
    ],
)
def test_settings_that_would_matter_are_refused(calm: Wards, statement: str) -> None:
    calm.refuses(statement)


def test_row_security_off_is_an_error_not_a_bypass(wards: Wards) -> None:
    with wards.attacker() as connection:
        connection.execute("set row_security = off")
        with refused():
            connection.execute(COUNT)


def test_own_role_settings_harm_only_their_owner(wards: Wards) -> None:
    name = wards.database.name
    role = "tenant_" + wards.database.new_tenant()
    with psycopg.connect(wards.database.dsn(role), autocommit=True) as connection:
        connection.execute(
            f"alter role current_user in database {name} set search_path = tenant_globex, public"
        )
        connection.execute(f"alter role current_user in database {name} set row_security = off")
        connection.execute(f"alter role current_user in database {name} reset all")
    with psycopg.connect(wards.database.dsn(role), autocommit=True) as connection:
        # RESET ALL spares what only a superuser may set: what keeps literals out of the log stays
        assert connection.execute("show log_min_error_statement").fetchone() == ("panic",)
        assert connection.execute("show log_min_messages").fetchone() == ("fatal",)
        with refused():
            connection.execute("select * from tenant_globex.patients")


def test_the_attack_works_where_the_context_is_a_setting(wards: Wards) -> None:
    wards.admin.execute(
        """
        create table public.notes (tenant_id text, body text);
        insert into public.notes select 'globex', %s;
        alter table public.notes enable row level security, force row level security;
        create policy by_setting on public.notes using (tenant_id = current_setting('app.tenant_id', true));
        grant select on public.notes to ward_tenant
        """.replace("%s", f"'{SECRET}'")
    )
    with wards.attacker() as connection:
        assert connection.execute("select * from public.notes").fetchall() == []
        connection.execute("set app.tenant_id = 'globex'")
        assert connection.execute("select body from public.notes").fetchall() == [(SECRET,)]


def test_an_empty_setting_is_not_null(wards: Wards) -> None:
    """ATTACKS 2: SET LOCAL leaves an empty text behind, which a policy must not take for "all tenants"."""
    with wards.attacker() as connection:
        with connection.transaction():
            connection.execute("set local app.tenant_id = 'globex'")
        assert connection.execute("select current_setting('app.tenant_id', true)").fetchone() == ("",)
    with wards.attacker(None) as connection:
        with connection.transaction():
            connection.execute("select ward.login(%s)", [wards.token()])
        assert connection.execute("select ward.tenant_id()").fetchone() == (None,)
        with refused("WK001"):
            connection.execute(COUNT)
